"""A trial: the training of the verb ``train``, its evaluations reported to Ray Tune."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from cluster.errors import TrainingError
from student_train.config import TrainConfig
from student_train.loop import TrainerState, fit
from tune.checkpoints import keep
from tune.figures import Watch, failure, measured
from tune.large import fit_on_workers
from tune.proposals import proposal_config
from tune.shared_data import shared_with


def run_trial(
    members: Sequence[dict[str, Any]],
    *,
    train: dict[str, Any],
    shared_data: Mapping[str, ray.ObjectRef],
    metric: str,
    measures: tuple[str, ...],
    checkpoints: str | None,
    threads: int,
) -> None:
    """Train a student per member; every evaluation is reported, and weak members end.

    A training that fails for what it was asked to do reports so: no retry would help. What becomes of one that fails
    otherwise is decided by :class:`tune.follow.Follow`.

    Args:
        members: :class:`tune.proposals.Proposal` each; several are of one group of :func:`student_train.alike.groups`.
        train: the train config that their points go into.
        shared_data: what trials share, see :mod:`tune.shared_data`; unused by trials with several workers.
        metric: what members are compared by.
        measures: of ``size`` and ``latency``, those to report.
        checkpoints: directory in which a single member leaves its weights under its number; none leaves none.
        threads: threads of torch.
    """
    torch.set_num_threads(threads)
    try:
        configs = [proposal_config(TrainConfig.model_validate(train), member) for member in members]
        watches = [
            Watch(member, config, metric, measured(config, measures))
            for member, config in zip(members, configs, strict=True)
        ]
        if configs[0].resources.workers > 1:
            fit_on_workers(watches[0])
        else:
            _fit_alone(watches[0], shared_data, Path(checkpoints) if checkpoints else None)
    except TrainingError as error:
        tune.report({"reports": [failure(member, error) for member in members]})


def _fit_alone(watch: Watch, shared: Mapping[str, ray.ObjectRef], checkpoints: Path | None) -> None:
    proposal, config = watch.proposal, watch.config

    def on_evaluation(progress: TrainerState, save: Callable[[Path], None]) -> bool:
        if checkpoints and progress.epoch == config.epochs:
            keep(checkpoints, proposal["number"], save)
        report = watch.report(progress)
        tune.report({"reports": [report]})
        return not report["ended"]

    parent = proposal["parent"]
    start = None if parent is None or not checkpoints else checkpoints / str(parent)
    fit(config, shared_with(config, shared), on_evaluation, start)
