"""Where the checkpoints of a training lie. A run keeps them under its name, which is made of its identity.

See :func:`cluster.identity.digest`.
"""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow.fs import LocalFileSystem
from ray import train

from cluster.files import arrow
from cluster.paths import storage_path


def checkpoint_storage(storage: str | None, output: Path) -> str:
    """Where a training keeps its checkpoints: as asked, or beside its output, which all machines reach anyway."""
    if storage is None:
        return str(output.absolute().parent / f".{output.name}.checkpoints")
    return storage if "://" in storage else str(Path(storage).absolute())


def remove_checkpoints(storage: str, name: str) -> None:
    """Delete what a run keeps, and the storage's folder if nothing else is in it."""
    root, remote = arrow(storage_path(storage))
    filesystem = remote or LocalFileSystem()
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_dir(f"{root}/{name}")
    if remote is None:
        with contextlib.suppress(OSError):  # it holds other runs
            Path(root).rmdir()


@contextmanager
def last_checkpoint() -> Iterator[Path | None]:
    """The directory of the checkpoint to resume from, inside a worker of a restarted run; none in a new one."""
    checkpoint = train.get_checkpoint()
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as directory:
        yield Path(directory)
