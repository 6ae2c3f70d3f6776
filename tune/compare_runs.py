"""The trainings of a comparison: which there are, what each gives, and which are done already."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

from cluster.config import describe
from cluster.errors import ConfigError
from cluster.identity import digest
from student_train.config import TrainConfig, dro_weight
from student_train.loop import TrainingData, fit
from student_train.outcome import measure
from student_train.train import check_inputs, load_data
from tune.compare_config import PLAIN, PLAIN_SETTINGS, CompareConfig

RUNS_FOLDER = "runs"


class Result(BaseModel):
    """What one training gave; a JSON file each."""

    key: str
    """Hash of everything that the result depends on."""
    metrics: dict[str, float]
    counts: dict[str, int]


@dataclass(frozen=True)
class Run:
    """One training of a comparison."""

    student: str
    strategy: str
    seed: int
    config: TrainConfig
    key: str

    @property
    def name(self) -> str:
        """Unique among the runs, and fit for a file name."""
        words = f"{self.student}--{self.strategy}--{self.seed}"
        return "".join(c if c.isalnum() or c in "-+." else "-" for c in words)

    @property
    def loss(self) -> str:
        """The student's own loss in a word."""
        return self.config.loss.name + ("+dro" if dro_weight(self.config) else "")

    @property
    def embedding(self) -> str:
        """Which sides the teacher's embeddings join."""
        distillation = self.config.distillation
        return distillation.embedding if distillation.ed_weight else "none"


def plan(config: CompareConfig) -> tuple[list[Run], dict[str, str]]:
    """Every training of the comparison, plain ones first, and the fingerprints of their inputs.

    Raises:
        ConfigError: a setting of a student or a strategy is unknown, out of range, or does not fit the others.
        StaleInputError: data set or labels are missing or do not belong together.
    """
    if config.train.labels is None:
        raise ConfigError("`compare.train.labels` is missing: a comparison needs the labels of a teacher")
    strategies = {PLAIN: PLAIN_SETTINGS} | {n: s for n, s in config.strategies.items() if n != PLAIN}
    runs, inputs = [], check_inputs(config.train)
    for strategy, taught in strategies.items():
        for student, own in config.models.items():
            for seed in config.seeds:
                train = _changed(config.train, [own, taught, {"seed": seed}], f"{student}, {strategy}")
                runs.append(Run(student, strategy, seed, train, _key(train, check_inputs(train))))
    names = [run.name for run in runs]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise ConfigError(f"two students, strategies or seeds would both be written to {doubled}.json: rename one")
    return runs, inputs


def results_in(output: Path, runs: list[Run]) -> dict[Run, Result]:
    """The results that an output directory holds of runs with the same settings, data and labels."""
    return {run: result for run in runs if (result := done(output / RUNS_FOLDER, run))}


def done(folder: Path, run: Run) -> Result | None:
    """The result of a run if it is there and was made with the same settings, data and labels."""
    try:
        result = Result.model_validate_json((folder / f"{run.name}.json").read_text())
    except (OSError, ValidationError):
        return None
    return result if result.key == run.key else None


def save(folder: Path, run: Run, result: Result) -> None:
    """Write a result aside and rename it into place."""
    aside = folder / f".{run.name}.{os.getpid()}"
    aside.write_text(result.model_dump_json(indent=1) + "\n")
    aside.rename(folder / f"{run.name}.json")


def train_one(config: TrainConfig, key: str, threads: int) -> Result:
    """Train and measure one student in this process.

    Raises:
        TrainingError: loss or scores are not finite.
    """
    torch.set_num_threads(threads)
    shared_data = _materials(config.dataset, config.labels, config.distillation.top_k, config.model.max_length)
    student, progress = fit(config, shared_data, lambda progress, save: True)
    outcome = measure(config, shared_data, student, progress)
    return Result(key=key, metrics=outcome["metrics"], counts=outcome["counts"])


@lru_cache(maxsize=2)
def _materials(dataset: Path, labels: Path | None, top_k: int, history: int) -> TrainingData:
    """Rows and labels, read once per process however many students it trains."""
    settings = {
        "dataset": dataset,
        "labels": labels,
        "distillation": {"top_k": top_k},
        "model": {"max_length": history},
    }
    return load_data(TrainConfig.model_validate(settings))


def _changed(train: TrainConfig, changes: list[Mapping[str, Any]], name: str) -> TrainConfig:
    settings = train.model_dump()
    for change in changes:
        settings = _merged(settings, change)
    try:
        return TrainConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"compare, {name}: {describe(error)}") from error


def _merged(settings: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for name, value in change.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged


def _key(train: TrainConfig, inputs: Mapping[str, str]) -> str:
    return digest(train, inputs)
