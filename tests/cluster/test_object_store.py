from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from s3fs import S3FileSystem

from cluster import paths
from cluster.config import Config
from cluster.errors import OutputError, StaleInputError, StorageError
from cluster.files import CACHE_VARIABLE, local_copy, read_parquet, write_parquet, write_text
from cluster.paths import OPTIONS, files_under, storage_path
from cluster.storage import output_directory, read_manifest
from tests.object_store import Store, object_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with object_store(tmp_path_factory.mktemp("store"), "--fail-every", "5", "--slow-every", "7") as running:
        yield running


@pytest.fixture
def folder(store: Store, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    S3FileSystem.clear_instance_cache()
    paths._has_bucket.cache_clear()
    return storage_path(f"s3://bucket/{request.node.name}")


def test_a_directory_is_made_read_and_made_again_through_faults(folder: Path, store: Store) -> None:
    for rows in (3, 2):
        with output_directory(folder, verb="prepare", config=Config(), overwrite=True) as draft:
            for number in range(rows):
                write_parquet(pa.table({"a": [number]}), draft.path / f"part-{number}.parquet")
            with pytest.raises(StaleInputError, match="holds no finished output"):
                read_manifest(folder, "prepare")
        assert read_manifest(folder, "prepare").files == [f"part-{number}.parquet" for number in range(rows)]
    tables = [read_parquet(file) for file in sorted(folder.glob("part-*.parquet"))]
    assert pa.concat_tables(tables)["a"].to_pylist() == [0, 1]
    assert (local_copy(folder) / "part-1.parquet").is_file()
    with pytest.raises(OutputError, match="already holds the output of `dllm2rec prepare`"):
        write_again(folder)
    spoilt = store.log.read_text()
    assert "500 Internal Server Error" in spoilt
    assert "503 Slow Down" in spoilt


def write_again(folder: Path) -> None:
    with output_directory(folder, verb="prepare", config=Config()):
        pass


def test_a_failed_run_leaves_nothing_and_a_foreign_directory_is_refused(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), output_directory(folder, verb="prepare", config=Config()) as draft:
        write_text(draft.path / "part.txt", "half")
        _ = 1 / 0
    assert files_under(folder) == []
    write_text(folder / "thesis.tex", "years of work")
    with pytest.raises(OutputError, match="did not make"):
        write_again(folder)


TOUCHES: dict[str, Callable[[Path], object]] = {
    "exists": lambda path: path.exists(),
    "is_file": lambda path: path.is_file(),
    "read": lambda path: path.read_bytes(),
    "stream": lambda path: path.open("rb").read(),
    "write": lambda path: write_text(path, "x"),
    "list": files_under,
    "copy": local_copy,
}


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_wrong_bucket_is_told_in_one_line(folder: Path, touch: str) -> None:
    with pytest.raises(StorageError, match=r"^s3://other/x: .*(no bucket|bucket does not exist).*: check the name"):
        TOUCHES[touch](storage_path("s3://other/x"))


@pytest.mark.parametrize("touch", ["exists", "write", "list"])
def test_missing_credentials_are_told_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, touch: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(StorageError, match=r"^s3://bucket/\S+: Unable to locate credentials: check .*credentials"):
        TOUCHES[touch](folder / "x")


def test_a_server_that_is_gone_is_told_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIONS["s3"]["config_kwargs"]["retries"], "max_attempts", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r'^s3://bucket/\S+: Could not connect to the endpoint URL: "http://127'):
        write_text(storage_path(str(folder)) / "x", "1")


def test_a_missing_file_stays_one(folder: Path) -> None:
    assert not (folder / "x").exists()
    with pytest.raises(FileNotFoundError):
        (folder / "x").read_bytes()
    (folder / "x").unlink(missing_ok=True)


def test_gs_addresses_are_opened_by_gcsfs_or_name_its_extra() -> None:
    path = storage_path("gs://bucket/key/file.txt")
    assert (str(path.parent), path.name) == ("gs://bucket/key", "file.txt")
    try:
        import gcsfs
    except ImportError:
        with pytest.raises(StorageError, match=r"pip install 'dllm2rec\[gcs\]'"):
            path.exists()
    else:
        assert gcsfs.GCSFileSystem.protocol == ("gs", "gcs")
