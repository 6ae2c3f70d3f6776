"""Directories that verbs exchange: written aside and renamed, with a manifest that says what made them."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cluster.config import Config
from cluster.errors import OutputError, StaleInputError

MANIFEST_FILE = "manifest.json"


class Manifest(BaseModel):
    """What made a directory, from what, and how much it holds."""

    verb: str
    version: str
    created: datetime
    config: dict[str, Any]
    inputs: dict[str, str]
    counts: dict[str, int]
    metrics: dict[str, float]
    fingerprint: str


@dataclass
class Draft:
    """An output directory in the making; ``path`` is renamed into place when the block ends well."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@contextmanager
def output_directory(
    path: Path, *, verb: str, config: Config, inputs: dict[str, str] | None = None, overwrite: bool = False
) -> Iterator[Draft]:
    """Yield a draft directory; on success add its manifest and rename it to ``path``, else remove it.

    Raises:
        OutputError: ``path`` cannot be written, or holds something, and ``overwrite`` is off or another verb made it.
    """
    check_free(path, verb, overwrite)
    aside = path.parent / f".{path.name}.partial-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): choose another --output") from error
    draft = Draft(aside)
    try:
        yield draft
        write_manifest(draft, verb=verb, config=config, inputs=inputs)
        _rename_into_place(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_manifest(draft: Draft, *, verb: str, config: Config, inputs: dict[str, str] | None = None) -> None:
    """Mark a directory as finished; for verbs that fill theirs step by step, to be called last."""
    manifest = Manifest(
        verb=verb,
        version=version("dllm2rec"),
        created=datetime.now(UTC),
        config=config.model_dump(mode="json"),
        inputs=inputs or {},
        counts=draft.counts,
        metrics=draft.metrics,
        fingerprint=fingerprint(draft.path),
    )
    aside = draft.path / f".{MANIFEST_FILE}.{os.getpid()}"
    aside.write_text(manifest.model_dump_json(indent=2) + "\n")
    for file in draft.path.rglob("*.safetensors"):  # the library makes them for their owner's eyes alone
        file.chmod(aside.stat().st_mode)
    aside.rename(draft.path / MANIFEST_FILE)


def check_free(path: Path, verb: str, overwrite: bool) -> None:
    """Refuse an output path that holds something this verb may not replace.

    Raises:
        OutputError: see :func:`output_directory`.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MANIFEST_FILE).is_file():
        raise OutputError(f"{path} already holds something that dllm2rec did not make: choose another --output")
    made_by = read_manifest(path).verb
    if made_by != verb:
        raise OutputError(f"{path} already holds the output of `dllm2rec {made_by}`: choose another --output")
    if not overwrite:
        raise OutputError(
            f"{path} already holds the output of `dllm2rec {verb}`: choose another --output or add --overwrite True"
        )


def read_manifest(path: Path, verb: str | None = None) -> Manifest:
    """Read the manifest of a finished directory.

    Raises:
        StaleInputError: the directory is absent, unfinished, damaged, or made by another verb than ``verb``.
    """
    again = f"run `dllm2rec {verb} --output {path}`" if verb else "make it again"
    if not (path / MANIFEST_FILE).is_file():
        raise StaleInputError(f"{path} holds no finished output (no {MANIFEST_FILE}): {again}")
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST_FILE).read_text())
    except (ValidationError, UnicodeDecodeError) as error:
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


def fingerprint(path: Path) -> str:
    """SHA-256 over the names and contents of all files under ``path`` (or of one file).

    The manifest and hidden files are left out: they say how the others came about.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and _counts(p, path))
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(path)}\0{content}\n".encode())
    return total.hexdigest()


def _counts(file: Path, root: Path) -> bool:
    parts = file.relative_to(root).parts
    return file.name != MANIFEST_FILE and not any(part.startswith(".") for part in parts)


def _rename_into_place(aside: Path, path: Path) -> None:
    replaced = path.parent / f".{path.name}.replaced-{os.getpid()}"
    if path.exists():
        path.rename(replaced)
    try:
        aside.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
