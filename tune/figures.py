"""What a trial tells of itself."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from student_train.config import TrainConfig
from student_train.loop import Progress, exhausted
from student_train.student import Student
from tune.halving import weak

LATENCY_REPEATS = 50


@dataclass(frozen=True)
class Watch:
    """Follows one training of a trial: what is told of it, and when it ends early."""

    proposal: dict[str, Any]
    """A :class:`tune.proposals.Proposal`."""
    config: TrainConfig
    metric: str
    """What its bars are of."""
    measures: dict[str, float]
    """See :func:`measured`."""

    def report(self, progress: Progress) -> dict[str, Any]:
        """The evaluations so far; ``ended`` says whether it ends here, ``complete`` whether by itself."""
        history = list(progress.history)
        complete = progress.epoch >= self.config.epochs or exhausted(progress, self.config)
        return {
            "number": self.proposal["number"],
            "history": history,
            "complete": complete,
            "ended": complete or weak(history, self.proposal["bars"], self.metric),
            "seconds": progress.seconds,
            "measures": self.measures,
        }

    def failed(self, reason: str) -> dict[str, Any]:
        """The report of a training that failed."""
        return {"number": self.proposal["number"], "failed": reason, "ended": True}


def measured(config: TrainConfig, n_items: int, names: tuple[str, ...]) -> dict[str, float]:
    """Parameters of the exported student (``size``), and its median milliseconds for one history (``latency``)."""
    if not names:
        return {}
    student = Student(config.student, config.shape, n_items).eval()
    found = {"size": float(sum(parameter.numel() for parameter in student.parameters()))}
    if "latency" in names:
        found["latency"] = _latency(student, torch.zeros(1, config.shape.history, dtype=torch.int64))
    return {name: found[name] for name in names}


@torch.inference_mode()
def _latency(student: Student, history_1L: torch.Tensor) -> float:
    times = []
    for _ in range(LATENCY_REPEATS):
        started = time.perf_counter()
        student(history_1L)
        times.append(time.perf_counter() - started)
    return 1000 * float(torch.tensor(times).median())
