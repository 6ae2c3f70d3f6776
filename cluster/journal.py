"""What an MLflow server has missed while it was away: calls as JSON lines, one file per server and experiment."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Call = dict[str, Any]
"""One thing to tell the server, with everything fixed that telling it twice must not change."""


class Journal:
    """Calls in the order in which they were kept; safe for several processes at once."""

    def __init__(self, folder: Path, store: str) -> None:
        """Name the file in ``folder`` after ``store``; nothing is written before there is a call to keep."""
        self.file = folder.absolute() / f"{hashlib.sha256(store.encode()).hexdigest()[:16]}.jsonl"

    def append(self, call: Call) -> None:
        """Keep a call."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(), self.file.open("a") as file:
            # A line of its own, even after one that a killed process left without an end.
            file.write("\n" + json.dumps(call) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def pending(self) -> Iterator[list[Call]]:
        """Lend the calls; they are removed if the block ends well, and nobody else adds or sends any meanwhile."""
        if not self.file.exists():
            yield []
            return
        with self._locked():
            lines = self.file.read_text().splitlines() if self.file.exists() else []
            yield [call for line in lines if (call := _read(line))]
            self.file.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _read(line: str) -> Call | None:
    """The call of a line; none of an empty one, or of one half written by a process that was killed."""
    try:
        call: Call = json.loads(line)
    except json.JSONDecodeError:
        return None
    return call
