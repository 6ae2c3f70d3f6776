"""The verb ``compare``: a grid of students × strategies × seeds, each one a trial that is measured on test."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.config import describe
from cluster.console import say
from cluster.errors import ConfigError, UserError
from cluster.identity import digest
from cluster.probe import Probe, probed
from cluster.ray_session import ray_session
from cluster.storage import Draft, read_manifest, write_manifest
from cluster.tracking import Tracker
from data_prep.yardsticks import yardsticks
from student_train.config import TrainConfig
from student_train.train import check_inputs, say_if_unjudged
from tune.compare_config import PLAIN, PLAIN_SETTINGS, CompareConfig
from tune.compare_report import write_report
from tune.config import Value
from tune.journal import Journal, Record
from tune.run import Listed, clear, run_trials, trial_storage
from tune.schedulers import EveryTrial
from tune.search import base_config
from tune.search_runs import parent_run, trial_run
from tune.shared_data import share
from tune.space import point_config
from tune.trial import Plan


@dataclass(frozen=True, eq=False)
class Cell:
    """One training of a comparison."""

    model: str
    strategy: str
    seed: int
    point: dict[str, Value]
    config: TrainConfig
    key: str
    """Its identity: equal for trainings with equal settings on equal data and labels."""


def compare(config: CompareConfig) -> Path:
    """Train what is missing, then write ``results.csv``, ``report.md``, ``report.html`` and the pictures.

    Every training is kept in the journal, so that the same command resumes where it was stopped; a training whose
    settings, data or labels have changed is another one, and is done.

    Raises:
        ConfigError: a setting does not fit, or the cluster is too small for one training.
        StaleInputError: data set or labels are missing or do not belong together.
        OutputError: the output directory holds something else.
        UserError: a training failed.
    """
    if config.train.labels is None:
        raise ConfigError("`compare.train.labels` is missing: a comparison needs the labels of a teacher")
    base = base_config(config)
    inputs = check_inputs(base)
    say_if_unjudged(base)
    cells = list(grid(config, base))
    journal = Journal(config.output, "compare", {}, config.overwrite)
    run = parent_run("compare", config.output, config, inputs, journal.notes["id"])
    with (
        closing(journal),
        Tracker(config.tracking, config.output) as tracker,
        tracker.running(run),
        ray_session(config.cluster, dashboard=config.resources.workers > 1),
        probed(config.output, {"train.dataset": base.dataset, "train.labels": base.labels}, config.resources) as probe,
    ):
        places = enter(journal, cells)
        say(f"{len(journal.records)} trainings, {len(journal.ended)} of them done already")
        run_trials(
            lambda: plan_of(config, base, cells, inputs, probe),
            journal,
            lambda: (Listed(journal), EveryTrial()),
            total=len(journal.records),
            config=config,
            ended=lambda record: tracker.send_soon(trial_run(record, run)),
        )
        results = {cell: journal.records[places[cell.key]] for cell in cells}
        check_results(results)
        labels = read_manifest(base.labels, "label") if base.labels else None
        others = yardsticks(read_manifest(base.dataset).metrics, "test")
        written, summary = write_report(config.output, results, labels, others)
        tracker.send_soon(replace(run, artifacts=written, status="FINISHED"))
        clear(trial_storage(base.storage, config.output))
    write_manifest(Draft(config.output, {"trainings": len(cells)}), verb="compare", config=config, inputs=inputs)
    say(f"{summary}\n\n{config.output}: {', '.join(path.name for path in written)}")
    return config.output


def grid(config: CompareConfig, base: TrainConfig) -> Iterator[Cell]:
    """Every training of the comparison, plain ones first.

    Raises:
        ConfigError: a setting of a student or a strategy is unknown, out of range, or does not fit the others.
        StaleInputError: data set or labels are missing or do not belong together.
    """
    strategies = {PLAIN: PLAIN_SETTINGS} | {n: s for n, s in config.strategies.items() if n != PLAIN}
    for (strategy, taught), (model, own), seed in product(strategies.items(), config.models.items(), config.seeds):
        point = flat(own) | flat(taught) | {"seed": seed}
        try:
            train = point_config(base, point)
        except ValidationError as error:
            raise ConfigError(f"compare, {model}, {strategy}: {describe(error)}") from error
        yield Cell(model, strategy, seed, point, train, digest(train, check_inputs(train)))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Nested settings by their paths."""
    found: dict[str, Value] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def enter(journal: Journal, cells: list[Cell]) -> dict[str, int]:
    """Enter the trainings that the journal lacks, and leave others out; the number of each by its key."""
    places = {record.name: number for number, record in journal.records.items() if record.state != "failed"}
    new = max(journal.records, default=-1) + 1
    for number, cell in enumerate((cell for cell in {c.key: c for c in cells}.values() if cell.key not in places), new):
        journal.append(Record(number=number, name=cell.key, point=cell.point))
        places[cell.key] = number
    wanted = {places[cell.key] for cell in cells}
    journal.records = {number: record for number, record in journal.records.items() if number in wanted}
    return places


def plan_of(
    config: CompareConfig, base: TrainConfig, cells: list[Cell], inputs: dict[str, str], probe: Probe | None = None
) -> Plan:
    """What all trainings have in common."""
    return Plan(
        train=base.model_dump(mode="json"),
        resources=config.resources,
        shared=share([cell.config for cell in cells]) if config.resources.workers == 1 else None,
        checkpoint_seconds=config.checkpoint_seconds,
        test=True,
        storage=trial_storage(base.storage, config.output),
        inputs=inputs,
        probe=probe,
    )


def check_results(results: Mapping[Cell, Record]) -> None:
    """Refuse a comparison of which a training failed.

    Raises:
        UserError: says which and why.
    """
    for cell, record in results.items():
        if record.state == "failed":
            raise UserError(f"{cell.model}, {cell.strategy}, seed {cell.seed} failed: {record.reason}")
