"""Runs the trials of a search with Ray Tune."""

import logging
import os
import tempfile
from functools import partial
from typing import Any

from ray import tune as ray_tune

from cluster.console import say
from cluster.errors import ClusterError, UserError
from cluster.resources import check_resources
from student_train.config import TrainConfig
from tune.checkpoints import CHECKPOINTS_FOLDER, Prune
from tune.config import MINIMISED, TuneConfig
from tune.entry import start_trial
from tune.follow import Follow
from tune.halving import Rungs
from tune.journal import Journal, Record
from tune.proposals import Proposals, proposals, split
from tune.record_runs import RunRecorder
from tune.searcher import OrderedSearcher
from tune.shared_data import DECIDING, share
from tune.space import Space, grid, point_config

# Without these Ray Tune writes TensorBoard, CSV and JSON files of every trial, which the journal holds already, prints
# tables of its own, misses the files it was told not to write, and saves the state of all trials again and again.
QUIET_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "1000000000",
}
QUIET_LOGGERS = ("ray.tune.analysis.experiment_analysis", "ray.tune.tune")


def run_trials(
    config: TuneConfig, base: TrainConfig, space: Space, journal: Journal, recorder: RunRecorder
) -> list[Record]:
    """Run the trials that the journal lacks, and return all in their order.

    Raises:
        ConfigError: the cluster is too small for one trial.
        ClusterError: processes died while they started, again and again.
        OutputError: the journal cannot be written.
        UserError: the search was stopped before all trials ended, or trials found no data, no disk or no cluster.
    """
    recorder.catch_up(journal)
    for _ in range(config.retries + 1):
        planned = proposals(config, space, journal.starts)
        if all(number in journal.records for number in range(planned.total)):
            break
        journal.fault = None
        _run(config, trial_config(config, base), space, planned, journal, recorder)
        if not isinstance(journal.fault, ClusterError):  # that of a process that died, whose trial is proposed again
            break
    if journal.fault:
        raise journal.fault
    if len(journal.records) < planned.total:
        raise UserError(
            f"{config.output}: stopped after {len(journal.records)} of {planned.total} trials: the same command goes on"
        )
    recorder.finish()
    return [journal.records[number] for number in range(planned.total)]


def _run(
    config: TuneConfig,
    train: TrainConfig,
    space: Space,
    planned: Proposals,
    journal: Journal,
    recorder: RunRecorder,
) -> None:
    metric = config.search.objectives[0]
    rungs = Rungs(config.asha, metric) if config.search.scheduler == "asha" else None
    follow = Follow(journal, recorder, metric, planned.total, train.epochs)
    prune = [Prune(journal, config, planned.total // config.pbt.rounds)] if config.search.scheduler == "pbt" else []
    _quiet()
    # Otherwise one trial at a time waits for its actor, and a second one never gets its own.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(config.concurrent)
    with tempfile.TemporaryDirectory(prefix="dllm2rec-tune-") as storage:
        # Not by a Tuner, which would pickle searcher and callbacks for a restore that we do without; nor, with ray://
        # addresses, in an actor: the journal is here.
        ray_tune.run(
            ray_tune.with_resources(_trainable(config, train, space), _resources(config, train)),
            name=f"search-{os.getpid()}",
            num_samples=planned.total,
            search_alg=OrderedSearcher(planned, journal, 1, partial(split, train), rungs),
            storage_path=train.storage or storage,
            callbacks=[follow, *prune],
            max_failures=config.retries,
            reuse_actors=True,
            raise_on_failed_trial=False,
            verbose=0,
            _remote=False,
        )
    say(follow.summary())


def trial_config(config: TuneConfig, base: TrainConfig) -> TrainConfig:
    """What a trial trains: as many epochs as the scheduler gives, and in PBT without patience."""
    if config.search.scheduler == "asha":
        return base.model_copy(update={"epochs": config.asha.max_epochs})
    if config.search.scheduler == "pbt":
        epochs = config.pbt.epochs * config.pbt.rounds
        return base.model_copy(update={"epochs": epochs, "patience": epochs})
    return base


def _resources(config: TuneConfig, train: TrainConfig) -> dict[str, float]:
    """Of a trial's own process; with several workers these ask for theirs through Ray Train.

    Raises:
        ConfigError: the cluster is too small for one trial.
    """
    workers, own = train.resources, {"CPU": config.cpus_per_trial, "GPU": config.gpus_per_trial}
    asked, remedy = own, "lower --cpus-per-trial or --gpus-per-trial"
    if workers.workers > 1:
        asked = {name: workers.workers * each for name, each in workers.per_worker().items()}
        remedy = "lower --train.resources.workers or --train.resources.cpus"
    if not workers.autoscale:
        check_resources("one trial's workers", asked, remedy)
    # Ray Tune refuses to ask for nothing.
    return {"cpu": 0, "memory": 1} if workers.workers > 1 else {name.lower(): amount for name, amount in own.items()}


def _trainable(config: TuneConfig, train: TrainConfig, space: Space) -> Any:  # noqa: ANN401  # Ray Tune's wrapper
    deciding = {path: domain for path, domain in space.items() if path in DECIDING}
    several = train.resources.workers > 1
    checkpoints = config.output.absolute() / CHECKPOINTS_FOLDER if config.search.scheduler == "pbt" else None
    return ray_tune.with_parameters(
        start_trial,
        gpus=config.gpus_per_trial,
        train=train.model_dump(mode="json"),
        shared_data={} if several else share(point_config(train, point) for point in grid(deciding)),
        metric=config.search.objectives[0],
        measures=tuple(name for name in config.search.objectives if name in MINIMISED),
        checkpoints=str(checkpoints) if checkpoints else None,
        threads=max(1, int(config.cpus_per_trial)),
    )


def _quiet() -> None:
    os.environ.update(QUIET_ENVIRONMENT)
    for logger in QUIET_LOGGERS:
        logging.getLogger(logger).setLevel(logging.ERROR)
