"""What a finished training leaves: the exported student, its figures and its learning curve."""

import json
import time
from pathlib import Path
from typing import Any

import torch

from cluster.engine import mean_over_workers
from data_prep.schema import ITEMS_FILE
from student_train.config import TrainConfig
from student_train.evaluation import evaluate, metric_means
from student_train.exported import export_student
from student_train.loop import Materials, Progress
from student_train.rows import read_rows
from student_train.student import Student

CURVE_FILE = "curve.json"
RESULT_FILE = "result.json"


def measure(config: TrainConfig, materials: Materials, student: Student, progress: Progress) -> dict[str, Any]:
    """Evaluate the chosen student on test, once; a collective call.

    Returns:
        ``metrics`` (validation and test, seconds) and ``counts`` of the student's manifest.
    """
    length, padding = config.shape.history, student.n_items
    rows = read_rows(config.dataset, "test", length, padding, materials.rank, materials.world_size)
    device = next(student.parameters()).device
    started = time.perf_counter()
    sums = evaluate(student, rows, device)
    seconds = time.perf_counter() - started
    test = metric_means(mean_over_workers(sums))
    validation = {f"validation_{name}": value for name, value in progress.best.items() if name != "loss"}
    return {
        "metrics": validation
        | {f"test_{name}": value for name, value in test.items()}
        | {
            "test_seconds": float(mean_over_workers(torch.tensor(seconds))),
            "train_seconds": progress.seconds,
            "train_rows_per_second": materials.total_rows * progress.epoch / progress.seconds,
        },
        "counts": {
            "parameters": sum(p.numel() for p in student.parameters()),
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "world_size": materials.world_size,
        },
    }


def write_student(
    directory: Path, config: TrainConfig, student: Student, progress: Progress, outcome: dict[str, Any]
) -> None:
    """Write the exported student, its learning curve and its figures into ``directory``."""
    export_student(directory, student, config.student, config.shape, config.dataset / ITEMS_FILE)
    (directory / CURVE_FILE).write_text(json.dumps(progress.history, indent=1) + "\n")
    (directory / RESULT_FILE).write_text(json.dumps(outcome, indent=1) + "\n")


def progress_line(config: TrainConfig, progress: Progress) -> str:
    """Epoch, loss, validation figures and the time that is left at most."""
    now = progress.history[-1]
    left = progress.seconds / progress.epoch * (config.epochs - progress.epoch)
    return (
        f"{config.student}: epoch {progress.epoch}/{config.epochs}  loss {now['loss']:.4f}  validation HR@20 "
        f"{now['hr@20']:.4f} NDCG@20 {now['ndcg@20']:.4f}  (best epoch {progress.best_epoch})  "
        f"{progress.seconds:.0f} s, at most {left:.0f} s left"
    )
