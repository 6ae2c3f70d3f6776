"""The verb ``compare``: every student with every strategy and seed, side by side on all CPUs or GPUs."""

import time
from collections.abc import Iterator
from pathlib import Path

import ray
from ray.exceptions import RayTaskError

from cluster.console import say
from cluster.errors import OutputError, UserError
from cluster.ray_session import ray_session
from cluster.resources import check_resources
from cluster.storage import MANIFEST_FILE, Draft, read_manifest, write_manifest
from cluster.tracking import Tracker
from student_train.config import TrainConfig
from student_train.transitions import transition_metrics
from tune.compare_config import CompareConfig
from tune.compare_report import write_report
from tune.compare_runs import Result, Run, done, plan, save, train_one

RUNS_FOLDER = "runs"
VERB = "compare"


def compare(config: CompareConfig) -> Path:
    """Train what is missing, then write ``results.csv``, ``report.md`` and the pictures.

    Every finished training is a file of its own, so that the same command goes on where it was stopped; a training
    whose settings, data or labels have changed is done again.

    Raises:
        ConfigError: a setting does not fit, or the cluster is too small for one training.
        StaleInputError: data set or labels are missing or do not belong together.
        OutputError: the output directory holds something else.
        UserError: a training failed.
    """
    runs, inputs = plan(config)
    folder = _open(config.output)
    # Unfinished until the tables are written anew.
    (config.output / MANIFEST_FILE).unlink(missing_ok=True)
    results = {run: found for run in runs if not config.overwrite and (found := done(folder, run))}
    missing = [run for run in runs if run not in results]
    say(f"{len(runs)} trainings, {len(results)} of them done already")
    tracker = Tracker(config.tracking)
    with tracker.run(f"compare {config.output.name}") as parent:
        parent.log_params(config)
        parent.set_tags({f"fingerprint.{name}": value for name, value in inputs.items()})
        if missing:
            with ray_session(config.cluster):
                for run, result in _train(missing, config):
                    save(folder, run, result)
                    results[run] = result
                    record = tracker.open_run(run.name, parent=parent.id)
                    record.log_params(run.config)
                    record.log_metrics(result.metrics)
                    record.finish()
        labels = read_manifest(config.train.labels, "label") if config.train.labels else None
        transitions = transition_metrics(config.train)
        written, summary = write_report(config.output, {run: results[run] for run in runs}, labels, transitions)
        parent.log_artifacts(written)
    write_manifest(Draft(config.output, {"trainings": len(runs)}), verb=VERB, config=config, inputs=inputs)
    say(f"{summary}\n\n{config.output}: {', '.join(path.name for path in written)}")
    return config.output


def _open(output: Path) -> Path:
    """The folder of finished trainings."""
    folder = output / RUNS_FOLDER
    if output.exists() and any(output.iterdir()) and not folder.is_dir():
        raise OutputError(f"{output} already holds something that is no comparison: choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error.strerror}): choose another --output") from error
    return folder


def _train(runs: list[Run], config: CompareConfig) -> Iterator[tuple[Run, Result]]:
    """Results as they come; as many trainings at a time as the cluster has room for.

    Raises:
        UserError: the first one that a training raised.
    """
    each = {"CPU": config.cpus_per_run, "GPU": config.gpus_per_run}
    check_resources("the workers of one training", each, "lower --cpus-per-run or --gpus-per-run")
    remote = ray.remote(num_cpus=config.cpus_per_run, num_gpus=config.gpus_per_run, max_retries=2)(train_one)
    threads, started = max(1, int(config.cpus_per_run)), time.perf_counter()
    waiting = {remote.remote(_absolute(run), run.key, threads): run for run in runs}
    try:
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            run, result = waiting.pop(ready), ray.get(ready)
            finished = len(runs) - len(waiting)
            left = (time.perf_counter() - started) / finished * len(waiting)
            say(
                f"{finished} of {len(runs)} trainings: {run.student}, {run.strategy}, seed {run.seed}: validation "
                f"NDCG@20 {result.metrics['validation_ndcg@20']:.4f} after {result.counts['epochs']} epochs, "
                f"{left:.0f} s left",
            )
            yield run, result
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise


def _absolute(run: Run) -> TrainConfig:
    """The config with paths that hold wherever the worker was started."""
    labels = run.config.labels
    paths = {"dataset": run.config.dataset.absolute(), "labels": labels.absolute() if labels else None}
    return run.config.model_copy(update=paths)
