"""The path type of all configs: local, or on an object store (``s3://bucket/key``, ``gs://bucket/key``).

This is the one place that opens them. A local path is a plain :class:`pathlib.Path`. An address is a
:class:`RemotePath`, which has those methods of a ``Path`` that this project uses; signatures say ``Path`` for both.
What a store refuses is told in one line wherever it happens.
"""

import io
from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast
from urllib.parse import unquote

from pydantic import PlainSerializer, PlainValidator
from tyro.constructors import PrimitiveConstructorSpec
from upath import UPath
from upath.extensions import ProxyUPath

from cluster.errors import StorageError

RETRIES, CONNECT_SECONDS, READ_SECONDS = 5, 10, 60
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,  # other processes write, too
        "config_kwargs": {
            "retries": {"mode": "standard", "max_attempts": RETRIES},
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
        },
    },
    "gs": {"use_listings_cache": False},
    "memory": {},
}
"""How each kind of store is opened; credentials and endpoints come from the environment, as its own tools take them."""
EXTRAS = {"s3": "s3", "gs": "gcs"}
LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "fsspec", "gcsfs", "google")
REMEDIES = {
    "s3": "check the name, AWS_ENDPOINT_URL and the credentials (AWS_ACCESS_KEY_ID …, or a role of the machine)",
    "gs": "check the name and the credentials (GOOGLE_APPLICATION_CREDENTIALS, or an account of the machine)",
}


class Found(NamedTuple):
    """A file below a path: its name from there on, with slashes, its size in bytes, and what changes when it does."""

    name: str
    size: int
    version: str


class RemotePath(ProxyUPath):
    """A path on an object store.

    Raises:
        StorageError: from every method, where the store cannot be reached or refuses.
    """

    def exists(self, **_: Any) -> bool:  # noqa: ANN401
        """Whether there is a file, or are files below."""
        return self._type() is not None

    def is_file(self) -> bool:
        """Whether it is one file."""
        return self._type() == "file"

    def is_dir(self) -> bool:
        """Whether there are files below."""
        return self._type() == "directory"

    def stat(self, **_: Any) -> Any:  # noqa: ANN401
        """Size and time."""
        with told(self):
            return super().stat()

    def iterdir(self) -> Iterator["RemotePath"]:
        """What lies directly below."""
        with told(self):
            yield from list(super().iterdir())

    def glob(self, pattern: str, **_: Any) -> Iterator["RemotePath"]:  # noqa: ANN401
        """What matches below."""
        with told(self):
            yield from list(super().glob(pattern))

    def mkdir(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
        """Nothing: a store has no directories, only names with slashes."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the file."""
        with told(self):
            try:
                self.fs.rm_file(self.path)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    def open(self, mode: str = "rb", *, whole: bool = True, **_: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        """A stream to read bytes from; ``whole`` reads ahead, else just the ranges that are asked for."""
        if mode != "rb":
            raise ValueError(f"a remote file is opened to read bytes, not with {mode!r}: see cluster.files.written")
        with told(self):
            file = self.fs.open(self.path, "rb", **({} if whole else {"cache_type": "none"}))
        return io.BufferedReader(_Stream(self, file))

    def read_bytes(self) -> bytes:
        """The contents."""
        with told(self):
            return cast(bytes, self.fs.cat_file(self.path))

    def read_text(self, encoding: str | None = None, *_: Any, **__: Any) -> str:  # noqa: ANN401
        """The contents as text."""
        return self.read_bytes().decode(encoding or "utf-8")

    def write_bytes(self, data: bytes) -> int:
        """Put a file at once."""
        with told(self):
            self.fs.pipe_file(self.path, data)
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, *_: Any, **__: Any) -> int:  # noqa: ANN401
        """Put a text at once."""
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def _type(self) -> str | None:
        with told(self):
            try:
                return cast(str, self.fs.info(self.path)["type"])
            except FileNotFoundError:
                _check_bucket(self)
                return None


class _Stream(io.RawIOBase):
    """An open file of a store, whose errors are told."""

    def __init__(self, path: RemotePath, file: Any) -> None:  # noqa: ANN401
        self._path, self._file = path, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        with told(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        with told(self._path):
            return cast(bytes, self._file.read())

    def close(self) -> None:
        self._file.close()
        super().close()


def storage_path(value: str | Path) -> Path:
    """A path from a text: a :class:`RemotePath` from an address, else a local path as it is.

    Raises:
        ValueError: the address has another scheme or no bucket.
    """
    if not isinstance(value, str):
        return value
    scheme, address, rest = value.partition("://")
    if not address:
        return Path(value)
    if scheme == "file":
        return Path(unquote(rest))
    if scheme not in OPTIONS:
        raise ValueError(f"{value}: a path is local, s3:// or gs://")
    if not rest.strip("/"):
        raise ValueError(f"{value}: names no bucket")
    return cast(Path, RemotePath(value.rstrip("/"), **OPTIONS[scheme]))


def is_remote(path: Path) -> bool:
    """Whether a path lies on an object store."""
    return isinstance(path, ProxyUPath)


class LocalOrRemote(ABC):  # noqa: B024
    """What a path of a config is an instance of."""


LocalOrRemote.register(Path)
LocalOrRemote.register(RemotePath)

if TYPE_CHECKING:
    AnyPath = Path
else:
    AnyPath = Annotated[
        LocalOrRemote,
        PlainValidator(storage_path),
        PlainSerializer(str, when_used="json"),
        PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=lambda texts: storage_path(texts[0]),
            is_instance=lambda value: isinstance(value, LocalOrRemote),
            str_from_instance=lambda path: [str(path)],
        ),
    ]
"""A path of a config: local, ``s3://`` or ``gs://``. In YAML, manifests and on the command line it is its text."""


def files_under(path: Path) -> list[Found]:
    """All files below a directory, or the file itself, named ``.``; none where there is nothing."""
    if not is_remote(path):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        return [found for file in files if (found := _local(file, path))]
    remote = cast(RemotePath, path)
    with told(path):
        root, found = remote.path.rstrip("/"), remote.fs.find(remote.path, detail=True)
    return [
        Found(name.removeprefix(root).lstrip("/") or ".", info["size"], _version(info)) for name, info in found.items()
    ]


def _local(file: Path, root: Path) -> Found | None:
    try:
        stat = file.stat()
    except FileNotFoundError:  # another process has just renamed or removed it
        return None
    return Found(file.relative_to(root).as_posix(), stat.st_size, str(stat.st_mtime_ns))


def _version(info: dict[str, Any]) -> str:
    return "|".join(str(info[key]) for key in ("ETag", "etag", "generation", "LastModified", "created") if key in info)


@contextmanager
def told(path: Any) -> Iterator[None]:  # noqa: ANN401
    """Name the path, and say in the store's own words, why it cannot be reached. A missing file stays one.

    What happens to a local path is left as it is.

    Raises:
        StorageError: see above.
    """
    if not is_remote(path):
        yield
        return
    try:
        yield
    except Exception as error:
        if (isinstance(error, FileNotFoundError) and not _no_bucket(error)) or not _of_store(error):
            raise
        scheme = str(path).partition("://")[0]
        if isinstance(error, ImportError):
            raise StorageError(f"{path} needs another package: pip install 'dllm2rec[{EXTRAS[scheme]}]'") from error
        words = " ".join(str(error).split()) or type(error).__name__
        raise StorageError(f"{path}: {words}: {REMEDIES.get(scheme, 'check the address')}") from error


def _of_store(error: BaseException) -> bool:
    return isinstance(error, OSError | ImportError) or type(error).__module__.partition(".")[0] in LIBRARIES


def _no_bucket(error: BaseException) -> bool:
    return getattr(error.__cause__, "response", {}).get("Error", {}).get("Code") == "NoSuchBucket"


def _check_bucket(path: RemotePath) -> None:
    """Tell a missing bucket from a missing file.

    Raises:
        StorageError: there is no such bucket.
    """
    bucket = path.path.partition("/")[0]
    if path.protocol in EXTRAS and not _has_bucket(path.protocol, bucket):
        _has_bucket.cache_clear()
        raise StorageError(f"{path}: there is no bucket {bucket}: {REMEDIES[path.protocol]}")


@cache
def _has_bucket(scheme: str, bucket: str) -> bool:
    try:
        return bool(UPath(f"{scheme}://{bucket}", **OPTIONS[scheme]).fs.exists(bucket))
    except PermissionError:  # who may read files need not be allowed to list them
        return True
