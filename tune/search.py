"""The verb ``tune``: a search over fields of ``train`` on validation, its report, and the best student of it."""

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from cluster.console import say
from cluster.identity import deciding
from cluster.probe import Probe, probed
from cluster.ray_session import ray_session
from cluster.run_record import flatten
from cluster.storage import Draft, write_manifest
from cluster.tracking import Tracker
from student_train.config import TrainConfig
from student_train.train import check_inputs, say_if_unjudged
from tune.best import best_of, register_best, set_champion
from tune.config import AshaConfig, TrialsConfig, TuneConfig, render
from tune.fused import FusedTrial
from tune.journal import Journal
from tune.points import Brackets, Points, starting_points, total
from tune.run import clear, run_trials, trial_storage
from tune.schedulers import EveryTrial, Halving, Population
from tune.search_report import write_report
from tune.search_runs import parent_run, trial_run
from tune.shared_data import share
from tune.space import Space, check_space, point_config
from tune.trial import Plan, Trial


def tune(config: TuneConfig) -> Path:
    """Search, train the best setting as ``dllm2rec train`` would, register the student, and report.

    Every trial writes to the journal, so that the same command resumes where it was stopped, and a finished search
    resumes when it is given more trials. Selection sees validation rows only; the test rows are read once, by the final
    trainings.

    Raises:
        StaleInputError: data set or labels are missing, unfinished, or do not belong together.
        ConfigError: the space or `start_from` does not fit, a resource is missing, MLflow refuses, or every trial
            failed.
        OutputError: the output directory holds something else, or another search.
    """
    base = base_config(config)
    inputs = check_inputs(base)
    say_if_unjudged(base)
    space = check_space(config, base)
    metric = config.search.objectives[0]
    journal = open_journal(config, base, space, inputs)
    run = parent_run("tune", config.output, config, inputs, journal.notes["id"])
    with (
        closing(journal),
        Tracker(config.tracking, config.output) as tracker,
        tracker.running(run),
        ray_session(config.cluster, dashboard=config.resources.workers > 1),
        probed(config.output, {"train.dataset": base.dataset, "train.labels": base.labels}, config.resources) as probe,
    ):
        records = run_trials(
            lambda: plan_of(config, base, space, inputs, probe),
            journal,
            lambda: parts(config, base, space, journal),
            total=total(config, base, space),
            config=config,
            trainable=FusedTrial if config.fused > 1 else Trial,
            ended=lambda record: tracker.send_soon(trial_run(record, run)),
        )
        best = best_of(records, metric)
        champion = set_champion(config, base, best)
        written = write_report(config, space, records, champion)
        figures = {f"search_validation_{metric}": best.best(metric)}
        tracker.send_soon(replace(run, metrics=figures, artifacts=written, status="FINISHED"))
        registered = register_best(config, tracker, champion.student, run)
        clear(trial_storage(base.storage, config.output))
    failed = sum(record.state == "failed" for record in records)
    draft = Draft(config.output, {"trials": len(records), "failed": failed})
    draft.metrics |= figures
    write_manifest(draft, verb="tune", config=config, inputs=inputs)
    say(f"{config.output}: best validation {metric} {best.best(metric):.4f} of {len(records)} trials, {registered}")
    return config.output


def base_config(config: TrialsConfig) -> TrainConfig:
    """The train config that points go into: where it runs and is recorded comes from the verb's config.

    Paths are made absolute, for trials may start in another directory.
    """
    train = config.train
    update: dict[str, Any] = {name: getattr(config, name) for name in ("resources", "cluster", "tracking")}
    update["dataset"] = train.dataset.absolute()
    update["labels"] = train.labels.absolute() if train.labels else None
    return train.model_copy(update=update)


def open_journal(config: TuneConfig, base: TrainConfig, space: Space, inputs: Mapping[str, str]) -> Journal:
    """The journal of the search, with the points that come first.

    Raises:
        ConfigError: a search that begins finds nothing to start from.
        OutputError: the output directory holds something else or another search, or another process works on it.
    """
    about = flatten(deciding(config.model_copy(update={"search": config.search.model_copy(update={"space": {}})})))
    about |= {f"search.space.{path}": render(domain) for path, domain in space.items()}
    about |= {f"fingerprint of the {name}": value for name, value in inputs.items()}
    if config.search.scheduler == "pbt":
        about["trials"] = str(config.trials)  # the population
    unused = tuple(f"{name}." for name in ("asha", "pbt") if name != config.search.scheduler)
    about = {name: value for name, value in about.items() if not name.startswith(unused)}
    journal = Journal(config.output, "tune", about, config.overwrite)
    if "starts" not in journal.notes:
        journal.note(starts=starting_points(config, base, space))
    return journal


def plan_of(
    config: TuneConfig, base: TrainConfig, space: Space, inputs: Mapping[str, str], probe: Probe | None = None
) -> Plan:
    """What all trials have in common: as many epochs as the scheduler gives, and in PBT no patience."""
    train, hands_on = base, config.search.scheduler == "pbt"
    decisions: Sequence[int] = ()
    if config.search.scheduler == "asha":
        train = base.model_copy(update={"epochs": config.asha.max_epochs})
        decisions = rungs(config.asha)
    elif hands_on:
        epochs = config.pbt.epochs * config.pbt.rounds
        train = base.model_copy(update={"epochs": epochs, "patience": epochs})
        decisions = range(config.pbt.epochs, epochs + 1, config.pbt.epochs)
    ends = [{path: end} for path, domain in space.items() for end in domain.ends()]
    several = config.resources.workers > 1
    return Plan(
        train=train.model_dump(mode="json"),
        resources=config.resources,
        seeds=config.seeds,
        objectives=config.search.objectives,
        shared=None if several else share([base, *(point_config(base, end) for end in ends)]),
        decisions=tuple(decisions),
        hands_on=hands_on,
        reduction=config.asha.reduction,
        checkpoint_seconds=config.checkpoint_seconds,
        storage=trial_storage(base.storage, config.output),
        inputs=dict(inputs),
        probe=probe,
    )


def parts(
    config: TuneConfig, base: TrainConfig, space: Space, journal: Journal
) -> tuple[Searcher | None, TrialScheduler]:
    """Ray Tune's searcher and scheduler for what the journal lacks; a population has no searcher."""
    points = Points(config, base, space, journal)
    if config.search.scheduler == "pbt":
        while points.suggest(f"member {len(journal.records)}") != Searcher.FINISHED:
            pass
        return None, Population(config, space, journal)
    if config.fused > 1:
        return Brackets(points, base, journal, config.fused), EveryTrial()
    if config.search.scheduler == "asha":
        return points, Halving(config.asha, config.search.objectives[0], journal)
    return points, EveryTrial()


def rungs(config: AshaConfig) -> list[int]:
    """Epochs at which successive halving compares trials."""
    found, epoch = [], float(config.grace)
    while epoch < config.max_epochs:
        found.append(math.ceil(epoch))
        epoch *= config.reduction
    return found
