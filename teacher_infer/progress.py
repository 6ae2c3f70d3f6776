"""How far a labelling job is."""

import time

from cluster.console import report, say
from teacher_infer.stats import Stats


class Progress:
    """Adds up what comes in and reports it."""

    def __init__(self, name: str, rows: int, done: int) -> None:
        """``done`` of all ``rows`` were labelled by earlier runs."""
        self.tally = Stats()
        self._name, self._rows, self._done = name, rows, done
        self._start = time.perf_counter()
        if done:
            say(f"{name}: {done:,} of {rows:,} rows are labelled already")

    def add(self, tally: Stats) -> None:
        """Count a piece of work."""
        self.tally += tally
        seconds = time.perf_counter() - self._start
        new = self.tally.rows + self.tally.failed
        tokens = self.tally.prompt_tokens + self.tally.new_tokens
        text = f"{new / seconds:,.0f} rows/s, {tokens / seconds:,.0f} tokens/s, {self.tally.failed:,} failed"
        report(self._name, self._done + new, self._rows, "rows", text)
