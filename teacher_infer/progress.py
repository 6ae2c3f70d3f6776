"""How far a labelling job is, as lines in a log."""

import time

from teacher_infer.stats import Stats

LOG_SECONDS = 10.0


class Progress:
    """Adds up what comes in and prints a line every few seconds and at the end."""

    def __init__(self, rows: int, done: int) -> None:
        """``done`` of all ``rows`` were labelled by earlier runs."""
        self.tally = Stats()
        self._rows, self._done = rows, done
        self._start = self._logged = time.perf_counter()
        if done:
            print(f"teach: {done:,} of {rows:,} rows are labelled already", flush=True)

    def add(self, tally: Stats) -> None:
        """Count a piece of work."""
        self.tally += tally
        now = time.perf_counter()
        seen = self._done + self.tally.rows + self.tally.failed
        if now - self._logged > LOG_SECONDS or seen == self._rows:
            self._logged = now
            print(self._line(now - self._start, seen), flush=True)

    def _line(self, seconds: float, seen: int) -> str:
        new = self.tally.rows + self.tally.failed
        tokens = self.tally.prompt_tokens + self.tally.new_tokens
        left = (self._rows - seen) * seconds / max(new, 1)
        return (
            f"teach: {self._done + self.tally.rows:,} of {self._rows:,} rows, {new / seconds:,.0f} rows/s, "
            f"{tokens / seconds:,.0f} tokens/s, {seconds:.0f} s, {left:.0f} s left, "
            f"{self.tally.failed:,} failed"
        )
