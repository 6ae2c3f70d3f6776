"""What a trial tells of itself."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
import torch

from cluster.errors import TrainingError
from data_prep.schema import ITEMS_FILE
from student_train.config import TrainConfig
from student_train.loop import TrainerState, out_of_patience
from student_train.models.student import Student
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

    def report(self, progress: TrainerState) -> dict[str, Any]:
        """The evaluations so far; ``ended`` says whether it ends here, ``complete`` whether by itself."""
        history = list(progress.history)
        complete = progress.epoch >= self.config.epochs or out_of_patience(progress, self.config)
        return {
            "number": self.proposal["number"],
            "history": history,
            "complete": complete,
            "ended": complete or weak(history, self.proposal["bars"], self.metric),
            "seconds": progress.seconds,
            "measures": self.measures,
        }


def failure(proposal: Mapping[str, Any], error: TrainingError) -> dict[str, Any]:
    """The report of a training that failed."""
    return {"number": proposal["number"], "failed": str(error), "ended": True}


def measured(config: TrainConfig, names: tuple[str, ...]) -> dict[str, float]:
    """Parameters of the exported student (``size``), and its median milliseconds for one history (``latency``)."""
    if not names:
        return {}
    n_items = pq.read_metadata(config.dataset / ITEMS_FILE).num_rows
    student = Student(config.model, n_items).eval()
    found = {"size": float(sum(parameter.numel() for parameter in student.parameters()))}
    if "latency" in names:
        found["latency"] = _latency(student, torch.zeros(1, config.model.max_length, dtype=torch.int64))
    return {name: found[name] for name in names}


@torch.inference_mode()
def _latency(student: Student, history_1L: torch.Tensor) -> float:
    times = []
    for _ in range(LATENCY_REPEATS):
        started = time.perf_counter()
        student(history_1L)
        times.append(time.perf_counter() - started)
    return 1000 * float(torch.tensor(times).median())
