"""Reading and writing files on any storage.

A file is written completely or not at all. Parquet is read as a stream. Where a library wants a local file, it gets a
copy that all processes of a node share.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

from cluster.paths import RemotePath, files_under, is_remote, told

CACHE_VARIABLE = "DLLM2REC_CACHE"
UNUSED_DAYS = 14
_numbers = count()


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yield a local file to fill; when the block ends well it stands at ``path``, complete, else nothing does.

    On a local disk it is filled aside, under a hidden name that no other process has, and renamed. An object store puts
    a file at once. Folders are made.
    """
    with tempfile.TemporaryDirectory() if is_remote(path) else _made(path.parent) as folder:
        aside = Path(folder) / f".{os.uname().nodename}-{os.getpid()}-{next(_numbers)}.{path.name}"
        try:
            aside.touch()
            mode = aside.stat().st_mode  # some libraries make files for their owner's eyes alone
            yield aside
            aside.chmod(mode)
            _put(aside, path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def written_directory(path: Path) -> Iterator[Path]:
    """Yield a local directory to fill; when the block ends well its files stand below ``path``.

    On a local disk it is ``path`` itself: the manifest of the output says whether it is complete.
    """
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        copy_into(Path(folder), path)


def copy_into(directory: Path, path: Path) -> None:
    """Copy all files of a local directory to below ``path``."""
    for file in files_under(directory):
        with written(path / file.name) as aside:
            shutil.copyfile(directory / file.name, aside)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with written(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
    """Write a value as JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_parquet(table: pa.Table, path: Path, **options: Any) -> None:  # noqa: ANN401
    """Write a table as one Parquet file."""
    with written(path) as aside:
        pq.write_table(table, aside, **options)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one Parquet file; of a remote one only what these columns need is fetched."""
    with parquet_file(path) as file:
        missing = set(columns or ()) - set(file.schema_arrow.names)
        if missing:
            raise KeyError(f"no column {', '.join(sorted(missing))}")
        return file.read(columns=None if columns is None else list(columns))


@contextmanager
def parquet_file(path: Path) -> Iterator[pq.ParquetFile]:
    """An open Parquet file, to be read in parts."""
    if not is_remote(path):
        with pq.ParquetFile(path, memory_map=True) as file:
            yield file
        return
    with path.open("rb", whole=False) as stream, pq.ParquetFile(stream, pre_buffer=True) as file:  # type: ignore[call-overload]
        yield file


def arrow(path: Path) -> tuple[str, FileSystem | None]:
    """How pyarrow and Ray Data call a path: its name, and the file system that it is on if it is remote."""
    if not is_remote(path):
        return str(path), None
    remote = cast(RemotePath, path)
    return remote.path, PyFileSystem(FSSpecHandler(remote.fs))


def parquet_dataset(files: Sequence[Path]) -> ds.Dataset:
    """Several Parquet files of one place as one table to read from."""
    names, filesystems = zip(*map(arrow, files), strict=True)
    with told(files[0]):
        return ds.dataset(list(names), format="parquet", filesystem=filesystems[0])


def parquet_rows(path: Path) -> int:
    """How many rows one Parquet file has."""
    with parquet_file(path) as file:
        return int(file.metadata.num_rows)


def local_copy(path: Path) -> Path:
    """The file or directory on this machine's disk, for libraries that want it there: itself, if it is local.

    A remote one is fetched once per node, whichever process asks first, and again when it has changed. Copies lie in
    ``DLLM2REC_CACHE``, else ``~/.cache/dllm2rec``; those not used for two weeks go when another one comes.

    Raises:
        FileNotFoundError: there is nothing.
    """
    if not is_remote(path):
        return path
    files = files_under(path)
    if not files:
        raise FileNotFoundError(str(path))
    root = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "dllm2rec")
    root.mkdir(parents=True, exist_ok=True)
    kept = root / hashlib.sha256(json.dumps([str(path), sorted(files)]).encode()).hexdigest()[:32]
    with (root / f"{kept.name}.lock").open("w") as lock:  # which also says when it was used last
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            _forget_unused(root)
            _fetch(cast(RemotePath, path), [file.name for file in files], kept)
    return kept / path.name


def _fetch(path: RemotePath, names: Sequence[str], kept: Path) -> None:
    aside = kept.with_suffix(".partial")
    shutil.rmtree(aside, ignore_errors=True)
    whole = aside / path.name
    targets = [whole if name == "." else whole / name for name in names]
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
    sources = [path.path if name == "." else f"{path.path}/{name}" for name in names]
    with told(path):
        path.fs.get(sources, list(map(str, targets)))
    aside.rename(kept)


def _forget_unused(root: Path) -> None:
    for lock in root.glob("*.lock"):
        if time.time() - lock.stat().st_mtime > UNUSED_DAYS * 24 * 3600:
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def _put(aside: Path, path: Path) -> None:
    if is_remote(path):
        with told(path):
            cast(RemotePath, path).fs.put_file(str(aside), cast(RemotePath, path).path)
        return
    with aside.open("rb") as stream:
        os.fsync(stream.fileno())  # a rename may outlive what it names when a machine is lost
    aside.replace(path)
