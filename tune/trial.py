"""A trial: one setting trained with all its seeds."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch
from pydantic import ValidationError
from ray import train as ray_train
from ray import tune
from ray.train import Checkpoint
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.result import DONE, SHOULD_CHECKPOINT

from cluster.checkpoints import last_checkpoint
from cluster.config import ResourcesConfig, describe
from cluster.devices import see_gpus
from cluster.errors import ConfigError, TrainingError
from cluster.files import parquet_rows
from cluster.identity import digest
from cluster.probe import Probe
from cluster.storage import read_manifest
from cluster.workers import Payload, run_workers
from data_prep.schema import ITEMS_FILE
from student_train.config import TrainConfig
from student_train.distilled_student import check_sides
from student_train.loop import Trainer, TrainingData
from student_train.models.student import Student
from student_train.outcome import measure
from student_train.train import check_length
from student_train.worker import load_data
from tune.config import MINIMISED
from tune.journal import Progress
from tune.shared_data import shared_with
from tune.space import Point, point_config

LATENCY_REPEATS = 50


REPORT_SECONDS = 1.0
"""A trial reports at least so often; the driver of hundreds of trials has to read what they say."""


@dataclass(frozen=True)
class Plan:
    """What all trials of a search or a comparison have in common."""

    train: dict[str, Any]
    """The train config that points go into."""
    resources: ResourcesConfig
    seeds: int = 1
    objectives: tuple[str, ...] = ("ndcg@20",)
    shared: ray.ObjectRef | None = None
    """The data that all trials read, see :mod:`tune.shared_data`."""
    decisions: tuple[int, ...] = ()
    """Epochs at which a scheduler decides about a trial."""
    hands_on: bool = False
    """Whether the scheduler needs a checkpoint at every decision (population based training)."""
    reduction: float = 3.0
    """Of so many members of a bracket, one continues after a decision."""
    checkpoint_seconds: float = 30.0
    test: bool = False
    """Whether the student is measured on test when its training ends, as a comparison does."""
    storage: str = ""
    """Where Ray Train keeps the checkpoints of trials with several workers."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Fingerprints by name."""
    probe: Probe | None = None
    """What every process of a trial has to see before it begins."""


class Trial(tune.Trainable):
    """One setting with its seeds; the process takes the next trial, so that a short one does not pay for a start."""

    def setup(self, config: dict[str, Any], plan: Plan) -> None:
        """Note what trials have in common; ``config`` has a point, and a checkpoint if it resumes."""
        if plan.probe:
            plan.probe.check()
        see_gpus(plan.resources.gpus)
        torch.set_num_threads(plan.resources.threads)
        self.plan = plan
        self.training: Training | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self.training = None
        return True

    def step(self) -> dict[str, Any]:
        """Train until there is something to report, at the latest why the trial failed for good.

        That is for settings that training refuses, and for a loss that is not finite.
        """
        try:
            self.training = self.training or self._resumed()
            report = self.training.step()
            return report | {DONE: report["complete"]}
        except TrainingError as error:
            return {"failed": str(error), DONE: True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write what :meth:`load_checkpoint` reads."""
        if self.training:
            self.training.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:  # noqa: ANN401  # a directory
        """Resume."""
        self.training = self._begin(Path(checkpoint))

    def _resumed(self) -> "Training":
        if not self.config["checkpoint"]:
            return self._begin(None)
        with tune.Checkpoint(self.config["checkpoint"]).as_directory() as directory:
            return self._begin(Path(directory))

    def _begin(self, checkpoint: Path | None) -> "Training":
        config = trained_config(self.plan, self.config["point"])
        return Training(self.plan, config, shared_with(config, self.plan.shared), checkpoint)


class Training:
    """The trainings of one setting, one per seed, in step: what stops it stops all of them, by their median."""

    def __init__(self, plan: Plan, config: TrainConfig, data: TrainingData, checkpoint: Path | None = None) -> None:
        self._plan, self._config = plan, config
        self._trainers = {
            seed: Trainer(
                config.model_copy(update={"seed": seed}), data, checkpoint / str(seed) if checkpoint else None
            )
            for seed in range(config.seed, config.seed + plan.seeds)
        }
        self._measures = measured(config, plan.objectives)
        self._kept = time.monotonic()

    @property
    def ended(self) -> bool:
        """Whether no seed has anything left to train."""
        return all(trainer.ended for trainer in self._trainers.values())

    def step(self, seconds: float = REPORT_SECONDS) -> dict[str, Any]:
        """Train for some seconds, or until the next epoch at which a scheduler decides; see :func:`report`."""
        started, before = time.monotonic(), self._epoch
        while not self.ended:
            for trainer in self._trainers.values():
                if not trainer.ended:
                    trainer.advance()
            decided = any(before < epoch <= self._epoch for epoch in self._plan.decisions)
            if decided or (time.monotonic() - started >= seconds and not self._plan.hands_on):
                break
        if self.ended and self._plan.test:
            self._measures |= self._tested()
        return self._report()

    def save(self, directory: Path) -> None:
        """Write a checkpoint of every seed."""
        for seed, trainer in self._trainers.items():
            trainer.save(directory / str(seed))
        self._kept = time.monotonic()

    @property
    def _epoch(self) -> int:
        return max(trainer.state.epoch for trainer in self._trainers.values())

    def _report(self) -> dict[str, Any]:
        """What Ray Tune's searcher and scheduler go by, and the progress as text, which they do not take apart."""
        progress = Progress(
            histories={seed: trainer.state.history for seed, trainer in self._trainers.items()},
            measures=self._measures,
            seconds=sum(trainer.state.seconds for trainer in self._trainers.values()),
        )
        overdue = time.monotonic() - self._kept >= self._plan.checkpoint_seconds and not self.ended
        return {
            "epoch": progress.epoch,
            "round": sum(epoch <= progress.epoch for epoch in self._plan.decisions),
            **{name: progress.best(name) for name in self._plan.objectives},
            "newest": progress.newest(self._plan.objectives[0]),
            "progress": progress.model_dump_json(),
            "complete": self.ended,
            SHOULD_CHECKPOINT: self._plan.hands_on or overdue,
        }

    def _tested(self) -> dict[str, float]:
        """Every metric of the student, on test too."""
        (trainer,) = self._trainers.values()
        outcome = measure(trainer.config, trainer.data, trainer.student(), trainer.state)
        return outcome["metrics"] | outcome["counts"]


def trained_config(plan: Plan, point: Point) -> TrainConfig:
    """What a point trains.

    Raises:
        TrainingError: training refuses it.
    """
    try:
        config = point_config(TrainConfig.model_validate(plan.train), point)
        check_length(config, read_manifest(config.dataset))
        if config.labels is not None:
            check_sides(config.model, config.distillation)
    except ValidationError as error:
        raise TrainingError(describe(error)) from error
    except ConfigError as error:
        raise TrainingError(str(error)) from error
    return config


class Reports(TuneReportCallback):
    """Hands evaluations to Ray Tune, but not the last one.

    At the last one Ray Tune ends the trial's process, which has to free its workers first.
    """

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ANN401
        """See :class:`ray.train.UserCallback`."""
        if not metrics[0]["complete"]:
            super().after_report(run_context, metrics, checkpoint)


def train_on_workers(config: dict[str, Any], plan: Plan) -> None:
    """A trial with several workers: it launches Ray Train, which hands every evaluation to Ray Tune.

    Ray Train itself resumes it from its last checkpoint, by the run's name.
    """
    try:
        trained = trained_config(plan, config["point"])
        name = f"trial-{digest(trained, plan.inputs | {'seeds': str(plan.seeds)})}"
        payload = {"plan": plan, "config": trained}
        last = run_workers(
            _worker, payload, plan.resources, name=name, storage=plan.storage, probe=plan.probe, callbacks=[Reports()]
        )
        tune.report(last)
    except TrainingError as error:
        tune.report({"failed": str(error)})


def _worker(payload: Payload) -> None:
    plan, config, context = payload["plan"], payload["config"], ray_train.get_context()
    data = load_data(config, context.get_world_rank(), context.get_world_size())
    with last_checkpoint() as checkpoint:
        training = Training(plan, config, data, checkpoint)
    complete = False
    while not complete:
        # Workers have to stop at the same evaluation, whatever their clocks say.
        report = training.step(seconds=0)
        complete = report["complete"]
        with tempfile.TemporaryDirectory() as directory:
            training.save(Path(directory))
            del report[SHOULD_CHECKPOINT]
            ray_train.report(report, checkpoint=Checkpoint.from_directory(directory))


def measured(config: TrainConfig, names: Sequence[str]) -> dict[str, float]:
    """Parameters of the exported student (``size``) and its median milliseconds for one history (``latency``)."""
    if not set(names) & set(MINIMISED):
        return {}
    n_items = parquet_rows(config.dataset / ITEMS_FILE)
    student = Student(config.model, n_items).eval()
    measures = {
        "size": lambda: float(sum(parameter.numel() for parameter in student.parameters())),
        "latency": lambda: _latency(student, torch.zeros(1, config.model.max_length, dtype=torch.int64)),
    }
    return {name: measures[name]() for name in names if name in MINIMISED}


@torch.inference_mode()
def _latency(student: Student, history_1L: torch.Tensor) -> float:
    times = []
    for _ in range(LATENCY_REPEATS):
        started = time.perf_counter()
        student(history_1L)
        times.append(time.perf_counter() - started)
    return 1000 * median(times)
