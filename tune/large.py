"""A trial too large for one process: it launches Ray Train with several workers, which report through it."""

from typing import Any

from ray import train as ray_train
from ray.tune.integration.ray_train import TuneReportCallback

from cluster.identity import digest
from cluster.workers import Payload, checkpoint_storage, run_workers
from student_train.loop import TrainerState, fit
from student_train.train import check_inputs, load_data
from tune.figures import Watch


def fit_on_workers(watch: Watch) -> None:
    """Train on ``config.workers`` of a watch; called in a Ray Tune trial, which gets every evaluation.

    Raises:
        ConfigError: the cluster is too small for the workers asked for.
        UserError: raised by the training on any worker.
    """
    config = watch.config
    run_workers(
        _worker,
        {"watch": watch},
        config.resources,
        name=f"trial-{digest(config, check_inputs(config))}",
        storage=checkpoint_storage(config.storage, config.output),
        callbacks=[TuneReportCallback()],
    )


def _worker(payload: Payload) -> None:
    watch: Watch = payload["watch"]
    context = ray_train.get_context()

    def on_evaluation(progress: TrainerState, save: Any) -> bool:  # noqa: ANN401  # unused
        report = watch.report(progress)
        ray_train.report({"reports": [report]})
        return not report["ended"]

    fit(watch.config, load_data(watch.config, context.get_world_rank(), context.get_world_size()), on_evaluation)
