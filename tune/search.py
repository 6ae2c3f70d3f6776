"""The verb ``tune``: a random search with successive halving on validation NDCG@20, and the best student of it."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator

from cluster.config import describe
from cluster.errors import ConfigError
from cluster.ray_session import ray_session
from cluster.resources import check_resources
from cluster.storage import check_free, output_directory
from cluster.tracking import Tracker
from student_train.config import TrainConfig
from student_train.register import register_student
from student_train.train import check_inputs, train
from tune.config import OF_STRATEGY, Range, TuneConfig, searched
from tune.follow import Follow
from tune.report import BEST_CONFIG_FILE, PICTURE_FILE, TRIALS_FILE, best_point, outcomes_of, write_report
from tune.trial import BEST, EPOCH, METRIC, point_config, run_trial, values_at

STUDENT_FOLDER = "student"
# Without these Ray Tune writes TensorBoard, CSV and JSON files of every trial, which MLflow holds already, prints
# tables of its own, and misses the files it was told not to write.
QUIET_ENVIRONMENT = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
QUIET_LOGGERS = ("ray.tune.analysis.experiment_analysis", "ray.tune.tune")


def tune(config: TuneConfig) -> Path:
    """Search, write the report, train the best configuration as ``dllm2rec train`` would, and register the student.

    Selection sees validation rows only; the test rows are read once, by the final training.

    Raises:
        StaleInputError: data set or labels are missing, unfinished, or do not belong together.
        ConfigError: a range does not fit, a resource is missing, MLflow does not answer, or every trial failed.
        OutputError: the output directory holds something else.
    """
    check_free(config.output, "tune", config.overwrite)
    base = base_config(config)
    inputs = check_inputs(base)
    check_ranges(config, base)
    tracker = Tracker(config.tracking)
    with ray_session(config.cluster), tracker.run(f"tune {base.student}") as parent:
        parent.log_params(config)
        parent.set_tags({f"fingerprint.{name}": value for name, value in inputs.items()})
        grid = search(config, base, Follow(tracker, parent.id, config.trials * config.seeds))
        outcomes = outcomes_of(grid)
        point, figure = best_point(outcomes, config.seeds)
        best = point_config(base, point)
        with output_directory(
            config.output, verb="tune", config=config, inputs=inputs, overwrite=config.overwrite
        ) as draft:
            write_report(draft.path, outcomes, best)
            draft.counts |= {"trials": len(grid), "failed": len(grid) - len(outcomes)}
            draft.metrics[f"search_{METRIC}"] = figure
        parent.log_metrics({f"search_{METRIC}": figure})
        parent.log_artifacts([config.output / name for name in (TRIALS_FILE, BEST_CONFIG_FILE, PICTURE_FILE)])
        student = train(best.model_copy(update={"output": config.output / STUDENT_FOLDER}))
        version = register_student(tracker, student, config.register_as, parent.id)
    print(
        f"{config.output}: best {METRIC} {figure:.4f} of {len(grid)} trials, {version.name} version {version.version}"
    )
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


def check_ranges(config: TuneConfig, base: TrainConfig) -> None:
    """Refuse ranges that reach beyond what a training accepts, or that have no effect.

    Raises:
        ConfigError: names the parameter and what to do.
    """
    own = OF_STRATEGY.get(base.distillation.strategy, ())
    others = {name for names in OF_STRATEGY.values() for name in names} - set(own)
    for name in searched(config):
        if base.labels is None and name != "learning_rate":
            raise ConfigError(
                f"`search.parameters` names {name}, which has no effect without a teacher: give --train.labels, or "
                "search learning_rate only"
            )
        if name in others:
            raise ConfigError(
                f"`search.parameters` names {name}, which has no effect with the strategy "
                f"{base.distillation.strategy}: leave it out or change --train.distillation.strategy"
            )
    for end in ("low", "high"):
        point = {str(name): getattr(getattr(config.search, name), end) for name in searched(config)}
        try:
            point_config(base, point)
        except ValidationError as error:
            raise ConfigError(f"the search reaches values that training refuses: {describe(error)}") from error


def search(config: TuneConfig, base: TrainConfig, follow: Follow) -> ray_tune.ResultGrid:
    """Run all trials.

    Raises:
        ConfigError: the cluster is too small for one trial.
    """
    resources = {"cpu": config.cpus_per_trial, "gpu": config.gpus_per_trial}
    if not base.workers.autoscale:
        asked = {name.upper(): amount for name, amount in resources.items()}
        check_resources("one trial's workers", asked, "lower --cpus-per-trial or --gpus-per-trial")
    os.environ.update(QUIET_ENVIRONMENT)
    for logger in QUIET_LOGGERS:
        logging.getLogger(logger).setLevel(logging.ERROR)
    settings = base.model_copy(update={"epochs": config.asha.max_epochs}).model_dump(mode="json")
    trainable = ray_tune.with_parameters(run_trial, train=settings, threads=max(1, int(config.cpus_per_trial)))
    with tempfile.TemporaryDirectory(prefix="dllm2rec-tune-") as storage:
        return ray_tune.Tuner(
            ray_tune.with_resources(trainable, resources),
            param_space=space(config),
            tune_config=ray_tune.TuneConfig(
                metric=BEST,
                mode="max",
                num_samples=config.trials,
                search_alg=BasicVariantGenerator(
                    points_to_evaluate=start(config, base),
                    constant_grid_search=True,
                    random_state=config.seed,
                    max_concurrent=config.concurrent,
                ),
                scheduler=ASHAScheduler(
                    time_attr=EPOCH,
                    max_t=config.asha.max_epochs,
                    grace_period=config.asha.grace,
                    reduction_factor=config.asha.reduction,
                ),
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                name="search", storage_path=base.workers.storage or storage, callbacks=[follow], verbose=0
            ),
        ).fit()


def space(config: TuneConfig) -> dict[str, Any]:
    """Ray Tune's sampling domains; every configuration is tried with each seed."""
    domains = {name: _domain(getattr(config.search, name)) for name in searched(config)}
    first = config.train.seed
    return domains | {"seed": ray_tune.grid_search(list(range(first, first + config.seeds)))}


def start(config: TuneConfig, base: TrainConfig) -> list[dict[str, Any]] | None:
    """The train section's own values as the first configuration, so that a search never ends below it on validation.

    None where a range leaves such a value out.
    """
    point = values_at(base, searched(config))
    ranges = {name: getattr(config.search, name) for name in point}
    return [point] if all(ranges[name].low <= value <= ranges[name].high for name, value in point.items()) else None


def _domain(values: Range) -> Any:  # noqa: ANN401  # Ray Tune's domain class
    return ray_tune.loguniform(values.low, values.high) if values.log else ray_tune.uniform(values.low, values.high)
