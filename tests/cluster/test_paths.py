import json
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
import tyro
import yaml
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import Field, ValidationError

from cluster.config import Config, NoEffect, has_effect
from cluster.errors import StaleInputError
from cluster.files import (
    CACHE_VARIABLE,
    local_copy,
    parquet_rows,
    read_parquet,
    write_parquet,
    write_text,
    written,
    written_directory,
)
from cluster.paths import AnyPath, files_under, is_remote, storage_path, told
from cluster.storage import MANIFEST_FILE, fingerprint, output_directory, read_manifest


class Paths(Config):
    """Paths."""

    dataset: NoEffect[AnyPath] = Field(Path("runs/dataset"), description="One.")
    labels: AnyPath | None = Field(None, description="Another.")
    several: tuple[AnyPath, ...] = Field((), description="More.")


@pytest.fixture
def remote() -> Path:
    MemoryFileSystem.store.clear()
    return storage_path("memory://bucket/folder")


@pytest.mark.parametrize("text", ["runs/dataset", "/data/a b", "s3://bucket/a//b", "gs://bucket/key", "s3://b/a=1/x"])
def test_a_path_is_the_same_through_every_form(text: str) -> None:
    config = tyro.cli(Paths, args=["--dataset", text, "--several", text, "s3://b/k"], default=Paths(labels=text))
    assert str(config.dataset) == str(config.labels) == str(config.several[0]) == text
    assert is_remote(config.dataset) == ("://" in text)
    assert str(config.dataset / "x.txt") == f"{text}/x.txt"
    written = yaml.safe_dump(config.model_dump(mode="json"))
    assert Paths.model_validate(yaml.safe_load(written)) == config
    assert Paths.model_validate(json.loads(config.model_dump_json())) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert Paths.model_validate(config) == config
    assert not has_effect(Paths.model_fields["dataset"])


def test_a_local_path_is_a_plain_path_and_stays_as_it_is() -> None:
    assert type(storage_path("runs/x")) is type(Path())
    assert storage_path("runs/x") == Path("runs/x")
    assert storage_path("file:///data/a%20b") == Path("/data/a b")
    assert storage_path("s3://b/k").absolute() == storage_path("s3://b/k")
    assert storage_path("s3://b/k").is_absolute()


@pytest.mark.parametrize(("text", "message"), [("http://host/x", "local, s3:// or gs://"), ("s3://", "no bucket")])
def test_other_addresses_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Paths(dataset=text)


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_file_is_written_completely_or_not_at_all(kind: str, tmp_path: Path, remote: Path) -> None:
    root = {"local": tmp_path / "deep", "remote": remote}[kind]
    write_text(root / "one.txt", "é")
    assert (root / "one.txt").read_text(encoding="utf-8") == "é"
    with pytest.raises(ZeroDivisionError), written(root / "one.txt") as aside:
        aside.write_text("half")
        _ = 1 / 0
    assert [file.name for file in files_under(root)] == ["one.txt"]
    assert (root / "one.txt").read_bytes() == "é".encode()
    with written_directory(root / "both") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "two.txt").write_text("2")
    assert sorted(file.name for file in files_under(root)) == ["both/sub/two.txt", "one.txt"]


def test_errors_of_a_local_path_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="mine"), told(tmp_path):
        raise PermissionError("mine")


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_parquet_is_read_in_parts(kind: str, tmp_path: Path, remote: Path) -> None:
    file = {"local": tmp_path, "remote": remote}[kind] / "t.parquet"
    write_parquet(pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]}), file)
    assert parquet_rows(file) == 3
    assert read_parquet(file).to_pydict() == {"a": [1, 2, 3], "b": ["x", "y", "z"]}
    assert read_parquet(file, ["b"]).column_names == ["b"]
    with pytest.raises(KeyError, match="no column c"):
        read_parquet(file, ["c"])
    with pytest.raises(FileNotFoundError):
        read_parquet(file.with_name("other.parquet"))


def test_a_directory_has_the_same_fingerprint_on_any_storage(tmp_path: Path, remote: Path) -> None:
    for root in (tmp_path, remote):
        with output_directory(root / "out", verb="prepare", config=Config()) as draft:
            write_text(draft.path / "a" / "x", "1")
            write_text(draft.path / "a.txt", "2")
            with pytest.raises(StaleInputError, match="no finished output"):
                read_manifest(root / "out", "prepare")
    assert read_manifest(tmp_path / "out").fingerprint == read_manifest(remote / "out").fingerprint
    assert fingerprint(tmp_path / "out" / "a.txt") == fingerprint(remote / "out" / "a.txt")
    with output_directory(remote / "out", verb="prepare", config=Config(), overwrite=True) as draft:
        write_text(draft.path / "b", "3")
    assert sorted(file.name for file in files_under(remote / "out")) == ["b", MANIFEST_FILE]


def test_a_copy_is_fetched_once_and_again_when_the_file_has_changed(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    assert local_copy(tmp_path) == tmp_path
    write_text(remote / "model" / "sub" / "weights.bin", "1")
    copy = local_copy(remote / "model")
    assert copy.name == "model"
    assert (copy / "sub" / "weights.bin").read_text() == "1"
    assert local_copy(remote / "model") == copy
    assert local_copy(remote / "model" / "sub" / "weights.bin").read_text() == "1"
    write_text(remote / "model" / "sub" / "weights.bin", "22")
    assert (local_copy(remote / "model") / "sub" / "weights.bin").read_text() == "22"
    assert (copy / "sub" / "weights.bin").read_text() == "1"
    with pytest.raises(FileNotFoundError):
        local_copy(remote / "absent")
