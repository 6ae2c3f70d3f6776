"""The journal of a search or a comparison: one file, to which every trial writes when it starts, is kept and ends."""

import errno
import fcntl
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cluster.errors import OutputError
from cluster.paths import is_remote
from cluster.storage import MANIFEST_FILE, check_free, clear, files_of_others
from tune.config import Value

TRIALS_FILE = "trials.jsonl"
State = Literal["running", "complete", "stopped early", "failed"]
History = list[dict[str, float]]


class Progress(BaseModel):
    """How far a trial has come: its evaluations on validation (epoch, loss and metrics) by seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    histories: dict[int, History] = {}
    measures: dict[str, float] = {}
    """``size`` (parameters) and ``latency`` (milliseconds), if asked for; in a comparison all metrics."""
    seconds: float = 0.0
    """Of training and evaluation."""

    @property
    def epoch(self) -> int:
        """The newest epoch of any seed."""
        return max((int(history[-1]["epoch"]) for history in self.histories.values() if history), default=0)

    def best(self, metric: str) -> float:
        """The median over the seeds of their best evaluations, or the measure of that name."""
        if metric in self.measures:
            return self.measures[metric]
        return median(max(at[metric] for at in history) for history in self.histories.values())

    def newest(self, metric: str) -> float:
        """The median over the seeds of their newest evaluations."""
        return median(history[-1][metric] for history in self.histories.values())


class Record(Progress):
    """A trial: one setting with all its seeds."""

    number: int
    """Its place in the order of proposals, from 0."""
    point: dict[str, Value]
    name: str = ""
    """In a comparison, the digest of its settings and inputs."""
    state: State = "running"
    reason: str = ""
    """Why it failed."""
    parent: int | None = None
    """The trial in which its weights began, if that is another one (population based training)."""
    checkpoint: str | None = None
    """Its newest checkpoint, a directory or a URI."""
    ended: float = 0.0
    """When, in seconds since 1970."""

    def now(self, progress: Progress, **changes: Any) -> "Record":  # noqa: ANN401  # its own fields
        """The same trial, having come so far."""
        return self.model_copy(update={name: getattr(progress, name) for name in Progress.model_fields} | changes)


class Journal:
    """Holds what decides the results and the newest state of every trial; one process writes at a time.

    Every line stands by itself: the first one says what the trials are of, the others are states of trials, of which
    the newest counts. A line that a kill or a full disk cut off is taken away.
    """

    def __init__(self, directory: Path, verb: str, about: Mapping[str, Any], again: bool = False) -> None:
        """Open the journal in ``directory``, or begin one; from now on the directory counts as unfinished.

        Args:
            directory: the verb's output.
            verb: ``tune`` or ``compare``.
            about: all that decides the results, by name.
            again: begin in an emptied directory.

        Raises:
            OutputError: the directory cannot be written, holds something else, or another process works on it.
        """
        self.directory = directory
        self.notes: dict[str, Any] = {}
        """What was noted beside the trials."""
        self.records: dict[int, Record] = {}
        if not (directory / TRIALS_FILE).exists():
            check_free(directory, verb, again)
        try:
            self._file = _opened(directory / TRIALS_FILE)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{directory}: another process is at work there: wait for it or stop it") from None
        except OSError as error:
            raise OutputError(f"{directory} cannot be written ({error.strerror}): choose another --output") from error
        with self._full_disk_is_one_line():
            self._read(damaged=again)
            if again and self.notes.get("verb", verb) == verb:
                self._empty()
            if "verb" not in self.notes:
                self.note(verb=verb, id=uuid.uuid4().hex, about=dict(about))
        self._check_same(verb, about)
        (directory / MANIFEST_FILE).unlink(missing_ok=True)

    @property
    def ended(self) -> list[Record]:
        """The trials that ended, in the order of their numbers."""
        return [record for _, record in sorted(self.records.items()) if record.state != "running"]

    @property
    def open(self) -> list[Record]:
        """The trials that began and have not ended."""
        return [record for _, record in sorted(self.records.items()) if record.state == "running"]

    def append(self, record: Record) -> None:
        """Keep the state of a trial; it is on disk when this returns.

        Raises:
            OutputError: the disk is full.
        """
        self._write(record.model_dump_json(exclude_defaults=True))
        self.records[record.number] = record

    def note(self, **notes: Any) -> None:  # noqa: ANN401  # what JSON holds
        """Keep something beside the trials.

        Raises:
            OutputError: the disk is full.
        """
        self._write(json.dumps(notes))
        self.notes |= notes

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()

    def _write(self, text: str) -> None:
        line = text.encode() + b"\n"
        with self._full_disk_is_one_line():
            start = self._file.seek(0, os.SEEK_END)
            try:
                if self._file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except OSError:
                os.ftruncate(self._file.fileno(), start)
                raise
            self._put()

    def _put(self) -> None:
        """To an object store, which appends nothing, the file goes as a whole."""
        if is_remote(self.directory):
            self._file.seek(0)
            (self.directory / TRIALS_FILE).write_bytes(self._file.read())

    @contextmanager
    def _full_disk_is_one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.directory} cannot be written ({error.strerror}): make room, then the same command resumes"
            ) from error

    def _empty(self) -> None:
        """Remove what the verb made but the file that is locked, trials before what they were trials of."""
        kept = files_of_others(self.directory)
        os.ftruncate(self._file.fileno(), 0)
        self._put()
        self.notes, self.records = {}, {}
        clear(self.directory, [TRIALS_FILE, *kept])

    def _read(self, damaged: bool) -> None:
        """Read all lines; ``damaged`` ones are allowed where they are not wanted anyway."""
        self._file.seek(0)
        lines = self._file.read()
        end = lines.rfind(b"\n") + 1
        os.ftruncate(self._file.fileno(), end)
        try:
            self.notes, self.records = parse(lines[:end].decode())
        except ValueError as error:
            if not damaged:
                raise self._other(f"{TRIALS_FILE} is damaged, or of an older version") from error

    def _check_same(self, verb: str, about: Mapping[str, Any]) -> None:
        if self.notes["verb"] != verb:
            raise OutputError(f"{self.directory} holds a `{self.notes['verb']}`: choose another --output")
        known, now = self.notes["about"], json.loads(json.dumps(about))
        changed = [name for name in known | now if known.get(name, _NOTHING) != now.get(name, _NOTHING)]
        if changed:
            before, after = (of.get(changed[0], _NOTHING) for of in (known, now))
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise self._other(f"{changed[0]} was {before}, now it is {after}{more}")

    def _other(self, reason: str) -> OutputError:
        return OutputError(
            f"{self.directory} holds another search: {reason}; choose another --output or add --overwrite True"
        )


def _opened(file: Path) -> FileIO:
    """The journal to append to: without a buffer, which would keep what a full disk refused and write it later.

    Of a remote one it is a copy, since an object store appends nothing; nor does it lock anybody out.
    """
    if not is_remote(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("ab+", buffering=0)
    copy = tempfile.TemporaryFile("ab+", buffering=0)  # noqa: SIM115  # the journal closes it
    if file.is_file():
        copy.write(file.read_bytes())
    return copy


_NOTHING = "nothing"


def parse(text: str) -> tuple[dict[str, Any], dict[int, Record]]:
    """The notes and the newest state of every trial in the lines of a journal.

    Raises:
        ValueError: a line is none of a journal.
    """
    notes: dict[str, Any] = {}
    records: dict[int, Record] = {}
    for line in text.splitlines():
        content = json.loads(line)
        if "number" in content:
            records[content["number"]] = Record.model_validate(content)
        else:
            notes |= content
    return notes, records


def read_journal(directory: Path) -> tuple[dict[str, Any], list[Record]]:
    """The notes and the trials that ended of a journal, which another process may be writing; empty without one."""
    with suppress(OSError, ValueError):
        lines = (directory / TRIALS_FILE).read_text(encoding="utf-8").splitlines(keepends=True)
        notes, records = parse("".join(line for line in lines if line.endswith("\n")))
        return notes, [record for _, record in sorted(records.items()) if record.state != "running"]
    return {}, []
