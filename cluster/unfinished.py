"""Trainings that were stopped: what each is of, noted beside its checkpoints, and those of one in a plain process."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.checkpoints import checkpoint_storage, remove_checkpoints
from cluster.config import Config
from cluster.errors import OutputError
from cluster.files import local_copy, write_json, written_directory
from cluster.identity import deciding, digest
from cluster.paths import storage_path
from cluster.run_record import flatten
from cluster.storage import clear

ABOUT_FILE, NEWEST_FILE = "about.json", "newest.json"
_RAYS_FILE = "checkpoint_manager_snapshot.json"
_SHOWN = 4


@dataclass(frozen=True)
class Unfinished:
    """A training that may be stopped and resumed: by this process, or by Ray Train, which reads its own checkpoints."""

    storage: str
    """Directory or URI that all machines reach."""
    name: str
    """Of its folder there: its identity."""
    place: str
    """The output, where other trainings have the same storage."""
    about: Mapping[str, str]
    """All that decides its result, by name."""

    @classmethod
    def of(
        cls, verb: str, config: Config, inputs: Mapping[str, str], storage: str | None, output: Path
    ) -> "Unfinished":
        """The training of a config from inputs with these fingerprints."""
        place = str(output.absolute()) if storage else ""
        about = flatten(deciding(config)) | {f"another {name}": value for name, value in inputs.items()}
        return cls(checkpoint_storage(storage, output), f"{verb}-{digest(config, inputs)}", place, about)

    @property
    def folder(self) -> Path:
        """Where its checkpoints lie."""
        return storage_path(self.storage) / self.name

    def check_place(self, output: Path, overwrite: bool) -> None:
        """Refuse to begin where another training was stopped, or with ``overwrite`` forget that one.

        Raises:
            OutputError: says in which settings they differ.
        """
        root = self.folder.parent
        for found in list(root.iterdir()) if root.is_dir() else []:
            other = _read(found / ABOUT_FILE)
            if other is None or found.name == self.name or other["place"] != self.place:
                continue
            if not overwrite:
                raise OutputError(
                    f"{output}: a training was stopped there that differs in {_differences(self.about, other['about'])}"
                    ": set that back to resume it, choose another --output, or add --overwrite True to begin again"
                )
            remove_checkpoints(self.storage, found.name)

    def note(self) -> None:
        """Say beside the checkpoints what they are of."""
        write_json(self.folder / ABOUT_FILE, {"place": self.place, "about": dict(self.about)})

    def keep(self, save: Callable[[Path], None], epoch: int) -> None:
        """Keep what ``save`` writes into a directory in place of the checkpoint before; for a plain process.

        A kill at any moment leaves one of the two.
        """
        before, name = _read(self.folder / NEWEST_FILE), f"epoch-{epoch}"
        with written_directory(self.folder / name) as made:
            save(made)
        write_json(self.folder / NEWEST_FILE, {"checkpoint_dir_name": name, "metrics": {"epoch": epoch}})
        if before and before["checkpoint_dir_name"] != name:
            clear(self.folder / before["checkpoint_dir_name"])

    def newest(self) -> Path | None:
        """The newest checkpoint that a plain process or Ray Train left, as a local directory."""
        mine, rays = _read(self.folder / NEWEST_FILE), _read(self.folder / _RAYS_FILE) or {}
        found = [one for one in (mine, rays.get("latest_checkpoint_result")) if one]
        if not found:
            return None
        name = max(found, key=lambda one: one["metrics"]["epoch"])["checkpoint_dir_name"]
        return local_copy(self.folder / name)

    def remove(self) -> None:
        """Forget it."""
        remove_checkpoints(self.storage, self.name)


def _differences(mine: Mapping[str, str], other: Mapping[str, str]) -> str:
    names = [name for name in {**mine, **other} if mine.get(name) != other.get(name)]
    shown = [
        name if name.startswith("another ") else f"`{name}`: {mine.get(name)} instead of {other.get(name)}"
        for name in names[:_SHOWN]
    ]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _read(file: Path) -> dict | None:
    try:
        found: dict = json.loads(file.read_text())
        return found
    except (FileNotFoundError, NotADirectoryError, ValueError):  # there is none, or a kill cut it off
        return None
