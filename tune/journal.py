"""The journal of a search: what it is about, and every trial that ended, on disk as soon as it ends."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.errors import OutputError, UserError
from tune.config import Value

SEARCH_FILE = "search.json"
TRIALS_FILE = "trials.jsonl"
State = Literal["complete", "stopped early", "failed"]


class Record(BaseModel):
    """A trial that ended."""

    model_config = ConfigDict(frozen=True)

    number: int
    """Its place in the order of proposals, from 0."""
    point: dict[str, Value]
    seed: int
    parent: int | None = None
    """The trial whose weights it started from (PBT)."""
    state: State
    reason: str = ""
    """Why it failed."""
    history: list[dict[str, float]] = []
    """Its evaluations on validation: epoch, loss and metrics; with those of its parents."""
    measures: dict[str, float] = {}
    """``size`` (parameters) and ``latency`` (milliseconds), if asked for."""
    seconds: float = 0.0
    """Of training and evaluation; with those of its parents."""
    ended: float
    """When, in seconds since 1970."""

    def best(self, metric: str) -> float:
        """Its best evaluation, or its measure of that name."""
        return self.measures[metric] if metric in self.measures else max(at[metric] for at in self.history)


class Journal:
    """Holds the search's settings and its ended trials; one process writes at a time."""

    def __init__(
        self, directory: Path, search: Mapping[str, str], starts: Sequence[Mapping[str, Value]] = (), anew: bool = False
    ) -> None:
        """Open the journal in ``directory``, or begin one.

        Args:
            directory: of the search.
            search: all that decides its results, as text by name.
            starts: the points that it begins with; one that goes on keeps those it began with.
            anew: begin in an emptied directory, whatever it holds.

        Raises:
            OutputError: the directory cannot be written, holds another search, or another process works on it.
        """
        self.directory = directory
        self.fault: UserError | None = None
        """What ends the search before its time."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # Without a buffer, which would keep what a full disk refused and write it later.
            self._file: FileIO = (directory / TRIALS_FILE).open("ab+", buffering=0)
        except OSError as error:
            raise OutputError(f"{directory} cannot be written ({error.strerror}): choose another --output") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{directory}: another process is searching there: wait for it or stop it") from None
        self.search = dict(search)
        """All that decides its results."""
        self.starts = [dict(point) for point in starts]
        """The points that come first."""
        if anew:
            with self._full_disk_is_one_line():
                self._empty()
        self._check_same()
        self.records = self._read()

    def append(self, record: Record) -> None:
        """Keep a trial; it is on disk when this returns.

        Raises:
            OutputError: the disk is full.
        """
        line = record.model_dump_json().encode() + b"\n"
        with self._full_disk_is_one_line():
            start = self._file.seek(0, os.SEEK_END)
            try:
                if self._file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except OSError:
                os.ftruncate(self._file.fileno(), start)
                raise
        self.records[record.number] = record

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()

    def _write_search(self) -> None:
        aside = self.directory / f".{SEARCH_FILE}.{os.getpid()}"
        content = {"starts": self.starts, "search": self.search}
        with self._full_disk_is_one_line():
            aside.write_text(json.dumps(content, indent=1) + "\n")
            aside.rename(self.directory / SEARCH_FILE)

    @contextmanager
    def _full_disk_is_one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.directory} cannot be written ({error.strerror}): make room, then the same command goes on"
            ) from error

    def _empty(self) -> None:
        """Remove all but the file that is locked, trials before what they were trials of."""
        os.ftruncate(self._file.fileno(), 0)
        for path in self.directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != TRIALS_FILE:
                path.unlink()

    def _check_same(self) -> None:
        try:
            known: dict[str, Any] = json.loads((self.directory / SEARCH_FILE).read_text())
        except FileNotFoundError:
            self._write_search()
            return
        except ValueError:
            raise self._other("its search.json is damaged") from None
        self.starts = known.get("starts", self.starts)
        changed = [name for name in known["search"] | self.search if known["search"].get(name) != self.search.get(name)]
        if changed:
            before, now = (search.get(changed[0], "nothing") for search in (known["search"], self.search))
            more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise self._other(f"{changed[0]} was {before}, now it is {now}{more}")

    def _other(self, reason: str) -> OutputError:
        return OutputError(
            f"{self.directory} holds another search: {reason}; choose another --output or add --overwrite True"
        )

    def _read(self) -> dict[int, Record]:
        """Ended trials by number; a line that a kill or a full disk cut off is taken away."""
        self._file.seek(0)
        text = self._file.read()
        whole = text[: text.rfind(b"\n") + 1]
        os.ftruncate(self._file.fileno(), len(whole))
        try:
            records = [Record.model_validate_json(line) for line in whole.splitlines()]
        except ValidationError as error:
            raise self._other(f"{TRIALS_FILE} is damaged") from error
        return {record.number: record for record in records}
