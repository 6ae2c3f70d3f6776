"""Follows trials from the driver: keeps every one of them in the journal, and shows how things stand."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import cloudpickle, tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial

from cluster.config import describe
from cluster.console import report
from cluster.errors import ClusterError, OutputError, UserError
from tune.journal import Journal, Progress, Record
from tune.trial import Plan

SHOWN_TRIALS = 4
SECONDS_BETWEEN_LOOKS = 1.0


class Stop(tune.Stopper):
    """Ends everything before its time."""

    def __init__(self) -> None:
        self.fault: UserError | None = None
        """What all trials stand on and is broken; no trial's fault."""
        self.interrupted = False

    def interrupt(self) -> None:
        """End everything because a person asked for it."""
        self.interrupted = True

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether one trial ends: none does."""
        return False

    def stop_all(self) -> bool:
        """Whether all end."""
        return self.interrupted or self.fault is not None


class Follow(tune.Callback):
    """Ray Tune calls this in the driver, so that one process alone writes to the journal."""

    def __init__(self, journal: Journal, plan: Plan, total: int, ended: Callable[[Record], None]) -> None:
        """Follow ``total`` trials of a plan; ``ended`` is called with every one that ended."""
        self.journal, self.total = journal, total
        self.stop = Stop()
        self._ended, self._metric = ended, plan.objectives[0]
        self._scheme = plan.storage.rpartition("://")[0]
        self._running: dict[int, Record] = {}
        self._shown = 0.0

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ANN401
    ) -> None:
        """Keep members of a bracket that ended, and show how far the others have come."""
        for record in self._records(trial, result):
            if record.state == "running" and "failed" not in result:
                self._running[record.number] = record
            elif record.state != "running":
                self._end(record)
        self.show()

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Keep its checkpoint, from which a search that was stopped resumes it."""
        if trial.checkpoint:
            path = f"{self._scheme}://{trial.checkpoint.path}" if self._scheme else trial.checkpoint.path
            for record in self._records(trial, trial.last_result):
                self._keep(record.model_copy(update={"checkpoint": path}))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Keep a trial that ended, by itself or by the scheduler."""
        result = trial.last_result
        for record in self._records(trial, result):
            reason = result.get("failed", "" if record.histories else "it ended without an evaluation")
            state = "failed" if reason else "complete" if result["complete"] else "stopped early"
            self._end(record.model_copy(update={"state": state, "reason": reason}))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Keep a trial that failed as often as it may, unless what it stands on failed: then end all of it."""
        error, number = error_of(trial), number_of(trial)
        if isinstance(error, RayActorError) and trial.should_recover():
            return  # Ray Tune retries none whose process died between two trials; `run_trials` does.
        if isinstance(error, UserError | OSError | RayError) and not isinstance(error, RayActorError):
            reason = f"trial {number} cannot train: {reason_of(error)} (fixed, the same command resumes)"
            self.stop.fault = UserError(reason)
            return
        for record in self._records(trial, trial.last_result):
            self._end(record.model_copy(update={"state": "failed", "reason": reason_of(error)}))

    def show(self, finished: bool = False) -> None:
        """Say how things stand; a log gets a line now and then."""
        if time.monotonic() - self._shown < SECONDS_BETWEEN_LOOKS and not finished:
            return
        self._shown = time.monotonic()
        ended, metric = self.journal.ended, self._metric
        done = [record for record in ended if record.state != "failed"]
        best = max(done, key=lambda record: record.best(metric), default=None)
        said = [f"best validation {metric} {best.best(metric):.4f} (trial {best.number})"] if best else []
        for record in list(self._running.values())[-SHOWN_TRIALS:]:
            said.append(f"trial {record.number} at epoch {record.epoch}: {record.best(metric):.4f}")
        report("trials", len(ended), self.total, "trials", ", ".join(said), finished)

    def _records(self, trial: Trial, result: dict[str, Any]) -> list[Record]:
        """A trial as it stands, or the members of a bracket of which nothing was heard or that were running still."""
        records, now = self.journal.records, {"ended": time.time()}
        if "members" in trial.config:
            heard = {one.number: one for one in map(Record.model_validate_json, result.get("records", []))}
            members = [heard.get(member["number"], records[member["number"]]) for member in trial.config["members"]]
            return [one.model_copy(update=now) for one in members if records[one.number].state == "running"]
        known, config = records[number_of(trial)], trial.config
        progress = Progress.model_validate_json(result["progress"]) if "progress" in result else known
        # In population based training its point has changed on the way, and its number is that of where it began.
        parent = config["number"] if config["number"] != known.number else known.parent
        return [known.now(progress, point=config["point"], parent=parent, **now)]

    def _end(self, record: Record) -> None:
        self._running.pop(record.number, None)
        self._keep(record)
        if not self.stop.fault:
            self._ended(record)
            self.show()

    def _keep(self, record: Record) -> None:
        try:
            self.journal.append(record)
        except OutputError as fault:
            self.stop.fault = fault


def number_of(trial: Trial) -> int:
    """The trial's number in the journal; its config has another's after it took over weights."""
    number: int = trial.evaluated_params["number"]
    return number


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
