"""Where a training stands: kept with every checkpoint and, at the end, in the teacher's manifest."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

FILE = "progress.json"


@dataclass
class Progress:
    """Counters and losses of one training, the same on every rank."""

    rows: int = 0
    dropped_history_titles: int = 0
    step: int = 0
    resumed_at: int = 0  # step that the last restart went on from
    tokens: int = 0  # without padding, over all ranks
    seconds: float = 0.0  # in training steps
    train_loss: float = math.inf  # mean since the evaluation before, nats per token
    best: float = math.inf  # lowest validation loss
    without_gain: int = 0  # evaluations since

    @property
    def speed(self) -> float:
        """Tokens per second of training."""
        return self.tokens / max(self.seconds, 1e-9)

    def evaluated(self, train_loss: float, validation_loss: float) -> bool:
        """Note an evaluation; true if it is the best so far."""
        better = validation_loss < self.best
        self.without_gain = 0 if better else self.without_gain + 1
        self.train_loss, self.best = train_loss, min(validation_loss, self.best)
        return better

    def counts(self) -> dict[str, int]:
        """Counts for the manifest."""
        return {
            "rows": self.rows,
            "dropped_history_titles": self.dropped_history_titles,
            "steps": self.step,
            "resumed_at_step": self.resumed_at,
            "tokens": self.tokens,
        }

    def metrics(self) -> dict[str, float]:
        """Metrics for the manifest."""
        return {
            "validation_loss": self.best,
            "train_loss": self.train_loss,
            "tokens_per_second": self.speed,
            "train_seconds": self.seconds,
        }

    def state(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return asdict(self)

    def leave(self, directory: Path) -> None:
        """Write to ``directory``."""
        (directory / FILE).write_text(json.dumps(self.state()))

    @staticmethod
    def stands_in(directory: Path) -> bool:
        """Whether :meth:`leave` wrote to ``directory``."""
        return (directory / FILE).is_file()

    @classmethod
    def take(cls, directory: Path) -> Self:
        """Read what :meth:`leave` wrote and remove the file."""
        progress = cls(**json.loads((directory / FILE).read_text()))
        (directory / FILE).unlink()
        return progress
