"""One trial: the training loop of the verb ``train``, every evaluation reported to Ray Tune."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from cluster.errors import UserError
from student_train.config import TrainConfig
from student_train.loop import Progress, fit
from tune.figures import measured, report_of
from tune.large import fit_on_workers
from tune.materials import shared_with
from tune.space import point_config


def run_trial(
    proposal: dict[str, Any],
    *,
    train: dict[str, Any],
    materials: Mapping[str, ray.ObjectRef],
    measures: tuple[str, ...],
    checkpoints: str | None,
    threads: int,
) -> None:
    """Train one student and report after every evaluation; Ray Tune may end it at any report.

    A training that fails for what it was asked to do (a loss that is not finite) reports so: no retry would help.

    Args:
        proposal: a :class:`tune.proposals.Proposal`.
        train: the train config that its point goes into.
        materials: what trials share, see :mod:`tune.materials`; unused by trials with several workers.
        measures: of ``size`` and ``latency``, those to report.
        checkpoints: directory in which the trial leaves its weights under its number; none leaves none.
        threads: threads of torch.
    """
    torch.set_num_threads(threads)
    changed = proposal["point"] | proposal["settings"] | {"seed": proposal["seed"]}
    config = point_config(TrainConfig.model_validate(train), changed)
    try:
        if config.workers.count > 1:
            fit_on_workers(config, measures)
        else:
            _fit_here(config, proposal, materials, measures, Path(checkpoints) if checkpoints else None)
    except UserError as error:
        tune.report({"failed": str(error)})


def _fit_here(
    config: TrainConfig,
    proposal: dict[str, Any],
    shared: Mapping[str, ray.ObjectRef],
    measures: tuple[str, ...],
    checkpoints: Path | None,
) -> None:
    materials = shared_with(config, shared)
    constant = {"measures": measured(config, len(materials.train_count), measures)}

    def on_evaluation(progress: Progress, save: Callable[[Path], None]) -> None:
        if checkpoints and progress.epoch == config.epochs:
            keep(checkpoints, proposal["number"], save)
        tune.report(report_of(progress, config) | constant)

    parent = proposal["parent"]
    fit(config, materials, on_evaluation, None if parent is None or not checkpoints else checkpoints / str(parent))


def keep(folder: Path, number: int, save: Callable[[Path], None]) -> None:
    """Leave a checkpoint under its trial's number that is whole or not there."""
    aside, place = folder / f".{number}-{os.getpid()}", folder / str(number)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save(aside)
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)
