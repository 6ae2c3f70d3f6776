"""Runs trials with Ray Tune: those of a search, and those of a comparison."""

import hashlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import ray
from pyarrow.fs import LocalFileSystem
from ray import tune
from ray.tune import CheckpointConfig, PlacementGroupFactory
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from cluster.config import ResourcesConfig
from cluster.errors import UserError
from cluster.files import arrow
from cluster.paths import storage_path
from cluster.resources import check_resources
from tune.config import TrialsConfig
from tune.follow import Follow
from tune.journal import Journal, Record
from tune.points import Remembered
from tune.trial import Plan, Trial, train_on_workers

# Without these Ray Tune writes TensorBoard, CSV and JSON files of every trial, which the journal holds already, prints
# tables of its own, changes the directory, wants every objective of a trial that failed, saves its own state, and takes
# an interrupt for a finished search.
QUIET_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "1000000000",
    "RAY_AIR_NEW_OUTPUT": "0",
}
QUIET_LOGGERS = ("ray.tune.analysis.experiment_analysis", "ray.tune.tune", "ray.tune.execution.tune_controller")
KEPT_CHECKPOINTS = 3  # of a trial: the journal may name the one before the newest, and so may a member of a population


class Listed(Remembered):
    """Hands out the open trials of the journal in their order."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._waiting = iter(journal.open)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next one."""
        record = next(self._waiting, None)
        return Searcher.FINISHED if record is None else record.model_dump(include={"number", "point", "checkpoint"})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the journal knows."""


Begin = Callable[[], tuple[Searcher | None, TrialScheduler]]


def run_trials(
    plan: Callable[[], Plan],
    journal: Journal,
    begin: Begin,
    *,
    total: int,
    config: TrialsConfig,
    ended: Callable[[Record], None],
    trainable: type[tune.Trainable] = Trial,
) -> list[Record]:
    """Run the trials that the journal lacks, and return all in their order.

    Args:
        plan: makes what trials have in common.
        journal: of the search or the comparison.
        begin: makes the searcher and the scheduler from what the journal holds; without a searcher, the open trials of
            the journal are a population that begins together.
        total: how many trials there will be.
        config: how they run.
        ended: called with every trial that ended, again with those that ended before; may be called twice.
        trainable: runs a trial of one process.

    Raises:
        ConfigError: the cluster is too small for one trial.
        OutputError: the journal cannot be written.
        UserError: it was stopped before all trials ended, or trials found no data, no disk or no cluster.
    """
    for record in journal.ended:  # a kill may have come between its end and what is done then
        ended(record)
    if len(journal.ended) >= total:
        return journal.ended
    os.environ.update(QUIET_ENVIRONMENT)
    for logger in QUIET_LOGGERS:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    most = min(config.concurrent or room(config.resources), total)
    common = plan()
    follow = Follow(journal, common, total, ended)
    runs = train_on_workers if config.resources.workers > 1 else trainable
    with on_interrupt(follow.stop.interrupt):
        for _ in range(config.retries + 1):
            if len(journal.ended) < total and not follow.stop.stop_all():
                _run(tune.with_parameters(runs, plan=common), common, begin, follow, most, config.retries)
    follow.show(finished=True)
    if follow.stop.fault:
        raise follow.stop.fault
    if len(journal.ended) < total:
        raise UserError(
            f"{journal.directory}: stopped after {len(journal.ended)} of {total} trials: the same command resumes"
        )
    return journal.ended


def _run(runs: Any, plan: Plan, begin: Begin, follow: Follow, most: int, retries: int) -> None:  # noqa: ANN401
    """Let Ray Tune run what the journal lacks."""
    searcher, scheduler = begin()
    journal = follow.journal
    # Otherwise few trials at a time wait for an actor.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(most + 1)
    # Not by a Tuner, which would pickle searcher and callbacks for a restore that we do without.
    tune.run(
        runs,
        name=f"{os.getpid()}-{len(journal.records)}",
        config={} if searcher else {"number": tune.grid_search([record.number for record in journal.open])},
        num_samples=follow.total if searcher else 1,
        search_alg=ConcurrencyLimiter(searcher, most) if searcher else None,
        scheduler=scheduler,
        stop=follow.stop,
        resources_per_trial=_resources(plan.resources),
        storage_path=plan.storage,
        checkpoint_config=CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
        callbacks=[follow],
        max_failures=retries,
        reuse_actors=plan.resources.workers == 1,
        raise_on_failed_trial=False,
        verbose=0,
        _remote=False,
    )


@contextmanager
def on_interrupt(call: Callable[[], None]) -> Iterator[None]:
    """Call something at the first interrupt, instead of what a second one does; in the main thread only.

    Ray Tune frees what trials hold only when it ends by itself.
    """
    if current_thread() is not main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        call()

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def room(resources: ResourcesConfig) -> int:
    """How many trials the cluster has room for.

    Raises:
        ConfigError: it has room for none.
    """
    asked = {name: amount * resources.workers for name, amount in resources.per_worker().items()}
    if not resources.autoscale:
        check_resources("one trial's workers", asked, "lower --resources.workers, --resources.cpus or --resources.gpus")
    have = ray.cluster_resources()
    return max(1, int(min(have.get(name, 0) / amount for name, amount in asked.items())))


def _resources(resources: ResourcesConfig) -> PlacementGroupFactory:
    """Of a trial's own process; several workers ask for theirs through Ray Train."""
    # Ray Tune refuses to ask for nothing.
    return PlacementGroupFactory([{"memory": 1} if resources.workers > 1 else resources.per_worker()])


def trial_storage(storage: str | None, output: Path) -> str:
    """Where the checkpoints of trials are kept: in a hidden folder of the output, or in a storage that is asked for."""
    if storage is None:
        return str(output.absolute() / ".trials")
    name = hashlib.sha256(str(output.absolute()).encode()).hexdigest()[:16]
    return f"{storage if '://' in storage else Path(storage).absolute()}/trials-{name}"


def clear(storage: str) -> None:
    """Delete the checkpoints that trials left."""
    root, remote = arrow(storage_path(storage))
    filesystem = remote or LocalFileSystem()
    if filesystem.get_file_info(root).type.name == "Directory":
        filesystem.delete_dir(root)
