"""One trial: the training loop of the verb ``train`` in a process of its own, every evaluation reported to Ray Tune."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ray import tune

from student_train.config import TrainConfig
from student_train.loop import SELECTION_METRIC, Progress, fit
from student_train.train import load_materials

METRIC = f"validation_{SELECTION_METRIC}"
BEST = f"best_{METRIC}"
EPOCH = "epoch"
COMPLETE = "complete"
_OUTER = ("learning_rate", "seed")

Point = Mapping[str, Any]
"""Values of the searched parameters, and the seed."""


def point_config(train: TrainConfig, point: Point) -> TrainConfig:
    """``train`` with the values of a point put in.

    Raises:
        pydantic.ValidationError: a value is out of the range that ``train`` allows.
    """
    settings = train.model_dump()
    for name, value in point.items():
        (settings if name in _OUTER else settings["distillation"])[name] = value
    return TrainConfig.model_validate(settings)


def values_at(train: TrainConfig, names: Sequence[str]) -> dict[str, Any]:
    """The point that ``train`` stands at: the inverse of :func:`point_config`."""
    return {name: getattr(train if name in _OUTER else train.distillation, name) for name in names}


def run_trial(point: dict[str, Any], train: dict[str, Any], threads: int) -> None:
    """Train one student and report after every evaluation; Ray Tune may end the process at any report.

    Args:
        point: values of the searched parameters and the seed.
        train: the train config they go into.
        threads: threads of torch.
    """
    torch.set_num_threads(threads)
    config = point_config(TrainConfig.model_validate(train), point)

    def on_evaluation(progress: Progress, save: Callable[[Path], None]) -> None:
        tune.report(report_of(progress, config))

    fit(config, load_materials(config), on_evaluation)


def report_of(progress: Progress, config: TrainConfig) -> dict[str, Any]:
    """The figures of the newest evaluation; ``complete`` says whether the training ends here by itself."""
    newest = progress.history[-1]
    waited = progress.epoch - progress.best_epoch
    return {
        **{f"validation_{name}": value for name, value in newest.items() if name not in (EPOCH, "loss")},
        "loss": newest["loss"],
        EPOCH: progress.epoch,
        BEST: progress.best[SELECTION_METRIC],
        "best_validation_hr@20": progress.best["hr@20"],
        "best_epoch": progress.best_epoch,
        "seconds": progress.seconds,
        COMPLETE: progress.epoch >= config.epochs or waited >= config.patience * config.evaluate_every,
    }
