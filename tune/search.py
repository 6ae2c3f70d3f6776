"""The verb ``tune``: a search over fields of ``train`` on validation, its report, and the best student of it."""

from contextlib import closing
from pathlib import Path
from typing import Any

from cluster.console import say
from cluster.ray_session import ray_session
from cluster.storage import Draft, write_manifest
from cluster.tracking import Tracker
from student_train.config import TrainConfig
from student_train.train import check_inputs
from tune.champion import register_best, set_champion
from tune.config import TuneConfig
from tune.opening import open_journal
from tune.outcome import best_of, outcomes_of
from tune.record_runs import RunRecorder, search_run
from tune.report import write_report
from tune.run import run_trials
from tune.space import check_space


def tune(config: TuneConfig) -> Path:
    """Search, train the best point as ``dllm2rec train`` would, register the student, and report.

    Every trial that ends is kept, so that the same command goes on where it was stopped and ends with the same best;
    a finished search goes on when given more trials. Selection sees validation rows only; the test rows are read once,
    by the final trainings.

    Raises:
        StaleInputError: data set or labels are missing, unfinished, or do not belong together.
        ConfigError: the space or `start_from` does not fit, a resource is missing, MLflow refuses, or every trial
            failed.
        OutputError: the output directory holds something else, or another search.
    """
    base = base_config(config)
    inputs = check_inputs(base)
    space = check_space(config, base)
    metric = config.search.objectives[0]
    tracker = Tracker(config.tracking)
    journal = open_journal(config, base, space, inputs)
    with (
        closing(journal),
        ray_session(config.cluster),
        search_run(tracker, journal, f"tune {base.model.name}", config, inputs) as parent,
    ):
        records = run_trials(config, base, space, journal, RunRecorder(tracker, parent.id, metric))
        outcomes = outcomes_of(records, config)
        best = best_of(outcomes)
        crowned = set_champion(config, base, best)
        written = write_report(config, space, records, outcomes, crowned)
        parent.log_metrics({f"search_validation_{metric}": best.values[0]})
        parent.log_artifacts(written)
        registered = register_best(config, tracker, crowned.student, parent.id)
    failed = sum(record.state == "failed" for record in records)
    draft = Draft(config.output, {"trials": len(records), "failed": failed})
    draft.metrics[f"search_validation_{metric}"] = best.values[0]
    write_manifest(draft, verb="tune", config=config, inputs=inputs)
    say(f"{config.output}: best validation {metric} {best.values[0]:.4f} of {len(records)} trials, {registered}")
    return config.output


def base_config(config: TuneConfig) -> TrainConfig:
    """The train config that points go into: where it runs and is recorded comes from the search's config.

    Paths are made absolute, for trials may start in another directory.
    """
    train = config.train
    update: dict[str, Any] = {"cluster": config.cluster, "tracking": config.tracking, "register_as": None}
    update["dataset"] = train.dataset.absolute()
    update["labels"] = train.labels.absolute() if train.labels else None
    return train.model_copy(update=update)
