"""Follows trials from the driver: keeps every one of them in the journal, and shows now and then how things stand."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import cloudpickle, tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial

from cluster.config import describe
from cluster.console import say
from cluster.errors import ClusterError, OutputError, UserError
from cluster.text import aligned
from tune.journal import Journal, Progress, Record
from tune.trial import Plan

SECONDS_BETWEEN_TABLES = 30
SHOWN_TRIALS = 8


class Stop(tune.Stopper):
    """Ends everything when there is no use in more trials: no trial is at fault, but what all of them stand on."""

    def __init__(self) -> None:
        self.fault: UserError | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether one trial ends: none does."""
        return False

    def stop_all(self) -> bool:
        """Whether all end."""
        return self.fault is not None


class Follow(tune.Callback):
    """Ray Tune calls this in the driver, so that one process alone writes to the journal."""

    def __init__(self, journal: Journal, plan: Plan, total: int, ended: Callable[[Record], None]) -> None:
        """Follow ``total`` trials of a plan; ``ended`` is called with every one that ended."""
        self.total = total
        self.journal, self._ended = journal, ended
        self._metric, self._epochs = plan.objectives[0], plan.train["epochs"]
        self._scheme = plan.storage.rpartition("://")[0]
        self.stop = Stop()
        self._began = self._shown = time.monotonic()
        self._before = len(journal.ended)
        self._running: dict[int, Record] = {}

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ANN401
    ) -> None:
        """Remember how far it has come."""
        self._running[number_of(trial)] = self._record(trial, result)

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Keep its checkpoint, from which a search that was stopped resumes it."""
        if trial.checkpoint:
            path = f"{self._scheme}://{trial.checkpoint.path}" if self._scheme else trial.checkpoint.path
            self._keep(self._record(trial, trial.last_result).model_copy(update={"checkpoint": path}))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Keep a trial that ended, by itself or by the scheduler."""
        result = trial.last_result
        reason = result.get("failed", "" if "progress" in result else "it ended without an evaluation")
        state = "failed" if reason else "complete" if result["complete"] else "stopped early"
        self._end(trial, self._record(trial, result).model_copy(update={"state": state, "reason": reason}))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Keep a trial that failed as often as it may, unless what it stands on failed: then end all of it."""
        error, number = error_of(trial), number_of(trial)
        if isinstance(error, RayActorError) and trial.should_recover():
            return  # Ray Tune retries none whose process died between two trials; `run_trials` does.
        if isinstance(error, UserError | OSError | RayError) and not isinstance(error, RayActorError):
            self.stop.fault = UserError(
                f"trial {number} cannot train: {reason_of(error)} (fixed, the same command resumes)"
            )
            return
        update = {"state": "failed", "reason": reason_of(error)}
        self._end(trial, self._record(trial, trial.last_result).model_copy(update=update))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ANN401
        """Show how things stand, sparsely: logs of clusters are read by people."""
        if time.monotonic() - self._shown < SECONDS_BETWEEN_TABLES:
            return
        self._shown = time.monotonic()
        running = [number_of(trial) for trial in trials if trial.status == Trial.RUNNING]
        shown = [self._running[number] for number in running if number in self._running]
        say(self.summary() + (f"\n{table(shown, self._metric, self._epochs)}" if shown else ""))

    def summary(self) -> str:
        """How many trials ended, the best of them, and the time that is left."""
        ended = self.journal.ended
        done = [record for record in ended if record.state != "failed"]
        best = max(done, key=lambda record: record.best(self._metric), default=None)
        told = f", best validation {self._metric} {best.best(self._metric):.4f} (trial {best.number})" if best else ""
        here, spent = len(ended) - self._before, time.monotonic() - self._began
        left = f", about {spent / here * (self.total - len(ended)):.0f} s left" if here else ""
        return f"{len(ended)} of {self.total} trials{told}{left}"

    def _record(self, trial: Trial, result: dict[str, Any]) -> Record:
        """A trial as it stands; in population based training its point has changed on the way."""
        known, config = self.journal.records[number_of(trial)], trial.config
        progress = Progress.model_validate_json(result["progress"]) if "progress" in result else known
        parent = config["number"] if config["number"] != known.number else known.parent
        return known.now(progress, point=config["point"], parent=parent, ended=time.time())

    def _end(self, trial: Trial, record: Record) -> None:
        self._running.pop(record.number, None)
        self._keep(record)
        if not self.stop.fault:
            self._ended(record)

    def _keep(self, record: Record) -> None:
        try:
            self.journal.append(record)
        except OutputError as fault:
            self.stop.fault = fault


def number_of(trial: Trial) -> int:
    """The trial's number in the journal; its config has another's after it took over weights."""
    number: int = trial.evaluated_params["number"]
    return number


def table(running: Sequence[Record], metric: str, epochs: int) -> str:
    """The trials that run, as lines."""
    rows = [["trial", "stage", metric, "time left", "point"]]
    for record in running[:SHOWN_TRIALS]:
        left = f"≤ {record.seconds / record.epoch * (epochs - record.epoch):.0f} s"
        stage = f"epoch {record.epoch}/{epochs}"
        rows.append([str(record.number), stage, f"{record.best(metric):.4f}", left, point_text(record.point)])
    return aligned(rows, left=(4,))


def point_text(point: dict[str, Any]) -> str:
    """A point on one line, by the last part of its fields' paths."""
    shown = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in point.items()}
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in shown.items())


def error_of(trial: Trial) -> BaseException | None:
    """What ended a trial. Ray Tune itself looks for it in its storage, where it comes only after the search.

    What its process did not raise, and which is none of its death, is a fault of Ray.
    """
    pickled, text = (Path(file) if file else None for file in (trial.pickled_error_file, trial.error_file))
    if pickled and pickled.is_file():
        error: BaseException = cloudpickle.loads(pickled.read_bytes())
        return error.cause if isinstance(error, RayTaskError) else error
    return ClusterError(text.read_text()) if text and text.is_file() else None


def reason_of(error: BaseException | None) -> str:
    """One line that says what went wrong: of a traceback the last one."""
    if error is None:
        return "no reason given"
    if isinstance(error, RayActorError):
        return "its process died"
    if isinstance(error, ValidationError):
        return describe(error)
    lines = str(error).strip().splitlines()
    return lines[-1][:300] if lines else type(error).__name__
