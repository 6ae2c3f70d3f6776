"""What a trial tells of itself."""

import time
from typing import Any

import torch

from student_train.config import TrainConfig
from student_train.loop import Progress
from student_train.student import Student

LATENCY_REPEATS = 50


def report_of(progress: Progress, config: TrainConfig) -> dict[str, Any]:
    """The evaluations so far; ``complete`` says whether the training ends here by itself."""
    waited = progress.epoch - progress.best_epoch
    return {
        "history": list(progress.history),
        "complete": progress.epoch >= config.epochs or waited >= config.patience * config.evaluate_every,
        "seconds": progress.seconds,
    }


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
