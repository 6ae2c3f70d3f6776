"""How far a labelling job is."""

import time

from cluster.console import report, say
from teacher_infer.stats import Stats


class Progress:
    """Adds up what comes in and reports it."""

    def __init__(self, name: str, rows: int, done: int) -> None:
        """``done`` of all ``rows`` were labelled by earlier runs."""
        self.stats = Stats()
        self._name, self._rows, self._done = name, rows, done
        self._start = time.perf_counter()
        if done:
            say(f"{name}: {done:,} of {rows:,} rows are labelled already")

    def add(self, stats: Stats) -> None:
        """Count a shard."""
        self.stats += stats
        seconds = time.perf_counter() - self._start
        new = self.stats.rows + self.stats.failed
        tokens = self.stats.prompt_tokens + self.stats.new_tokens
        speed = f"{new / seconds:,.0f} rows/s" + (f", {tokens / seconds:,.0f} tokens/s" if tokens else "")
        text = f"{speed}, {self.stats.failed:,} failed"
        report(self._name, self._done + new, self._rows, "rows", text)
