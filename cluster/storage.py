"""Directories that verbs exchange: complete when their manifest is there, which is written last.

A verb fills its directory in place, on any storage. While it does, a small file says whose work it is; a run that was
killed is recognised by it, and the same verb may begin again there. Readers look at the manifest alone.
"""

import hashlib
import os
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from cluster.commit import running_commit
from cluster.config import Config
from cluster.errors import OutputError, StaleInputError, UserError
from cluster.files import write_text
from cluster.paths import files_under, is_remote

MANIFEST_FILE = "manifest.json"
UNFINISHED_FILE = ".unfinished.json"
READERS = 8
BLOCK_BYTES = 8 << 20


class Manifest(BaseModel):
    """What made a directory, from what, and how much it holds."""

    verb: str
    version: str
    commit: str = ""
    """Of the code; empty where nobody knows it."""
    created: datetime
    config: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, int]
    metrics: dict[str, float]
    fingerprint: str
    shards: dict[str, list[int]] = Field(default_factory=dict)
    """Rows of each shard by split, in order; none in a directory of an earlier version."""
    files: list[str] | None = None
    """What the verb made, below the directory; none in one of an earlier version, whose files are all the verb's."""


class Unfinished(BaseModel):
    """Whose work a directory without a manifest is."""

    verb: str
    machine: str = Field(default_factory=lambda: os.uname().nodename)
    process: int = Field(default_factory=os.getpid)
    run: str = Field(default_factory=lambda: uuid.uuid4().hex)
    kept: list[str]
    """Files of others, that were here before."""

    @property
    def at_work(self) -> bool:
        """Whether another process of this machine still works on it; of other machines nothing is known."""
        if self.machine != os.uname().nodename or self.process == os.getpid():
            return False
        return Path(f"/proc/{self.process}").exists()


@dataclass
class Draft:
    """An output directory in the making."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    shards: dict[str, list[int]] = field(default_factory=dict)
    kept: Sequence[str] = ()
    """Files in it that the verb did not make."""


@contextmanager
def output_directory(
    path: Path, *, verb: str, config: Config, inputs: dict[str, str] | None = None, overwrite: bool = False
) -> Iterator[Draft]:
    """Yield a directory to fill; on success add its manifest, else remove what was made.

    What an earlier run of the verb made is removed first, its manifest before all else, so that nobody takes the
    directory for complete meanwhile. Files of others stay.

    Raises:
        OutputError: ``path`` cannot be written, or holds something, and ``overwrite`` is off or another verb made it;
            or another run has taken it meanwhile.
    """
    check_free(path, verb, overwrite)
    try:
        work = _begin(path, verb)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): choose another --output") from error
    draft = Draft(path, kept=work.kept)
    try:
        yield draft
        if _unfinished(path) != work:
            raise OutputError(f"another `dllm2rec {verb}` began in {path} meanwhile: choose another --output for one")
        write_manifest(draft, verb=verb, config=config, inputs=inputs)
        (path / UNFINISHED_FILE).unlink(missing_ok=True)
    except BaseException:
        with suppress(OSError, UserError):  # the next run clears what is left
            if _unfinished(path) == work:
                clear(path, work.kept)
        raise


def _begin(path: Path, verb: str) -> Unfinished:
    """Say whose work the directory is from now on, and clear what is left of an earlier run."""
    before = _unfinished(path)
    kept = before.kept if before else files_of_others(path)
    path.mkdir(parents=True, exist_ok=True)
    work = Unfinished(verb=verb, kept=kept)
    write_text(path / UNFINISHED_FILE, work.model_dump_json(indent=1) + "\n")
    clear(path, [*kept, UNFINISHED_FILE])
    return work


def files_of_others(path: Path) -> list[str]:
    """Files in a finished directory that its verb did not make; of an unfinished one none are known."""
    made = read_manifest(path).files if (path / MANIFEST_FILE).is_file() else None
    if made is None:
        return []
    return sorted({file.name for file in files_under(path)} - {*made, MANIFEST_FILE, UNFINISHED_FILE})


def clear(path: Path, kept: Sequence[str] = ()) -> None:
    """Delete the files of a directory, the manifest first and what says whose work it is last, and empty folders."""
    (path / MANIFEST_FILE).unlink(missing_ok=True)
    names = {file.name for file in files_under(path)} - set(kept)
    for name in sorted(names, key=lambda name: name == UNFINISHED_FILE):
        (path / name).unlink(missing_ok=True)
    if not is_remote(path):
        for folder, _, _ in os.walk(path, topdown=False):
            with suppress(OSError):  # it holds something
                Path(folder).rmdir()


def write_manifest(draft: Draft, *, verb: str, config: Config, inputs: dict[str, str] | None = None) -> None:
    """Mark a directory as finished; for verbs that fill theirs step by step, to be called last."""
    if not is_remote(draft.path):
        for file in draft.path.rglob("*.safetensors"):  # the library makes them for their owner's eyes alone
            file.chmod(draft.path.stat().st_mode & 0o666)
    apart = {MANIFEST_FILE, UNFINISHED_FILE, *draft.kept}
    manifest = Manifest(
        verb=verb,
        version=version("dllm2rec"),
        commit=running_commit(),
        created=datetime.now(UTC),
        config=config.model_dump(mode="json"),
        inputs=inputs or {},
        counts=draft.counts,
        metrics=draft.metrics,
        shards=draft.shards,
        fingerprint=fingerprint(draft.path, without=draft.kept),
        files=sorted(file.name for file in files_under(draft.path) if file.name not in apart),
    )
    write_text(draft.path / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")


def check_free(path: Path, verb: str, overwrite: bool) -> None:
    """Refuse an output path that holds something this verb may not replace.

    Raises:
        OutputError: see :func:`output_directory`.
    """
    if not path.exists() or (path.is_dir() and next(iter(path.iterdir()), None) is None):
        return
    if not (path / MANIFEST_FILE).is_file():
        _check_unfinished(path, verb)
        return
    made_by = read_manifest(path).verb
    if made_by != verb:
        raise OutputError(f"{path} already holds the output of `dllm2rec {made_by}`: choose another --output")
    if not overwrite:
        raise OutputError(
            f"{path} already holds the output of `dllm2rec {verb}`: choose another --output or add --overwrite True"
        )


def _check_unfinished(path: Path, verb: str) -> None:
    work = _unfinished(path)
    if work is None:
        raise OutputError(f"{path} already holds something that dllm2rec did not make: choose another --output")
    if work.verb != verb:
        raise OutputError(
            f"{path} holds the unfinished output of `dllm2rec {work.verb}`: choose another --output or delete it"
        )
    if work.at_work:
        raise OutputError(
            f"{path} is being written by another `dllm2rec {verb}` (process {work.process}): wait for it or choose "
            "another --output"
        )


def _unfinished(path: Path) -> Unfinished | None:
    try:
        return Unfinished.model_validate_json((path / UNFINISHED_FILE).read_text())
    except (FileNotFoundError, NotADirectoryError, ValidationError, UnicodeDecodeError):
        return None


def read_manifest(path: Path, verb: str | None = None) -> Manifest:
    """Read the manifest of a finished directory.

    Raises:
        StaleInputError: the directory is absent, unfinished, damaged, or made by another verb than ``verb``.
    """
    again = f"run `dllm2rec {verb} --output {path}`" if verb else "make it again"
    if not (path / MANIFEST_FILE).is_file():
        raise StaleInputError(f"{path} holds no finished output (no {MANIFEST_FILE}): {again}")
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST_FILE).read_bytes())
    except ValidationError as error:
        raise StaleInputError(f"{path / MANIFEST_FILE} is damaged: {again}") from error
    if verb and manifest.verb != verb:
        raise StaleInputError(f"{path} was made by `dllm2rec {manifest.verb}`, not by `dllm2rec {verb}`: {again}")
    return manifest


def check_made_from(path: Path, manifest: Manifest, name: str, expected: Path, expected_manifest: Manifest) -> None:
    """Refuse a directory made from another ``name`` (data set, teacher) than the one given.

    Raises:
        StaleInputError: the recorded fingerprint differs from that of ``expected``.
    """
    if manifest.inputs.get(name) != expected_manifest.fingerprint:
        raise StaleInputError(
            f"{path} was made from another {name} than {expected}: run `dllm2rec {manifest.verb}` again with "
            f"--{name} {expected}"
        )


def fingerprint(path: Path, without: Collection[str] = ()) -> str:
    """SHA-256 over the names and contents of all files under ``path`` (or of one file), the same on any storage.

    The manifest and hidden files are left out: they say how the others came about. So are those named in ``without``.
    Contents are read a block at a time, several files side by side.
    """
    names = [file.name for file in files_under(path) if _counts(file.name) and file.name not in without]
    names.sort(key=PurePosixPath)
    total = hashlib.sha256()
    with ThreadPoolExecutor(READERS) as pool:
        for name, content in zip(
            names, pool.map(lambda name: _digest(path if name == "." else path / name), names), strict=True
        ):
            total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()


def _counts(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return MANIFEST_FILE not in parts[-1:] and not any(part.startswith(".") for part in parts)


def _digest(file: Path) -> str:
    total = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()
