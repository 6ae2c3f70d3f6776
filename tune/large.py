"""A trial too large for one process: it launches Ray Train with several workers, which report through it."""

from typing import Any

import pyarrow.parquet as pq
from ray import train as ray_train
from ray.tune.integration.ray_train import TuneReportCallback

from cluster.workers import Payload, run_workers
from data_prep.schema import ITEMS_FILE
from student_train.config import TrainConfig
from student_train.loop import Progress, fit
from student_train.train import load_materials
from tune.figures import measured, report_of


def fit_on_workers(config: TrainConfig, measures: tuple[str, ...]) -> None:
    """Train on ``config.workers``; called in a Ray Tune trial, which gets every evaluation.

    Raises:
        ConfigError: the cluster is too small for the workers asked for.
        UserError: raised by the training on any worker.
    """
    n_items = pq.read_metadata(config.dataset / ITEMS_FILE).num_rows
    payload = {"config": config.model_dump(mode="json"), "measures": measured(config, n_items, measures)}
    run_workers(_worker, payload, config.workers, "trial", callbacks=[TuneReportCallback()])


def _worker(payload: Payload) -> None:
    config = TrainConfig.model_validate(payload["config"])
    context = ray_train.get_context()

    def on_evaluation(progress: Progress, save: Any) -> None:  # noqa: ANN401  # unused
        ray_train.report(report_of(progress, config) | {"measures": payload["measures"]})

    fit(config, load_materials(config, context.get_world_rank(), context.get_world_size()), on_evaluation)
