"""Follows a search from the driver: keeps every trial that ends, and shows now and then how things stand."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import cloudpickle, tune
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial

from cluster.config import describe
from cluster.console import say
from cluster.errors import ClusterError, UserError
from cluster.text import aligned
from tune.journal import Journal, Record
from tune.record_runs import RunRecorder

SECONDS_BETWEEN_TABLES = 30
SHOWN_TRIALS = 8


class Follow(tune.Callback):
    """Ray Tune calls this in the driver, so that one process alone writes to journal and MLflow."""

    def __init__(self, journal: Journal, recorder: RunRecorder, metric: str, total: int, epochs: int) -> None:
        """``epochs`` are the most that a trial trains."""
        self._journal = journal
        self._recorder = recorder
        self._metric = metric
        self._total = total
        self._epochs = epochs
        self._begun = self._shown = time.monotonic()
        self._before = len(journal.records)
        self._latest: dict[int, dict[str, Any]] = {}
        """What was last told of each trial, by number."""

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ANN401
    ) -> None:
        """Keep the members that ended, those that stopped early too."""
        for report in result.get("reports", []):
            self._latest[report["number"]] = report
        for proposal in self._open(trial):
            if self._latest.get(proposal["number"], {}).get("ended"):
                self._keep(record_of(proposal, self._latest[proposal["number"]]))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Keep members that told of no end."""
        for proposal in self._open(trial):
            self._keep(record_of(proposal, self._latest.get(proposal["number"], {})))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Keep a trial that failed as often as it may, unless what it stands on failed: then end the search."""
        open_, error = self._open(trial), error_of(trial)
        numbers = ", ".join(str(proposal["number"]) for proposal in open_)
        if isinstance(error, RayActorError) and trial.should_recover():
            # Ray Tune does not retry one whose process died while it started; `run_trials` does.
            self._journal.fault = ClusterError(f"the process of trial {numbers} died: the same command goes on")
        elif isinstance(error, UserError | OSError | RayError) and not isinstance(error, RayActorError):
            self._journal.fault = UserError(
                f"trial {numbers} cannot train: {reason_of(error)} (mended, the same command goes on)"
            )
        else:
            for proposal in open_:
                self._keep(record_of(proposal, {"failed": reason_of(error)}))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ANN401
        """Show how things stand, sparsely: logs of clusters are read by people."""
        if time.monotonic() - self._shown < SECONDS_BETWEEN_TABLES:
            return
        self._shown = time.monotonic()
        open_ = [proposal for trial in trials if trial.status == Trial.RUNNING for proposal in self._open(trial)]
        running = [(proposal, self._latest.get(proposal["number"], {})) for proposal in open_]
        say("\n".join([self.summary(), *([table(running, self._metric, self._epochs)] if running else [])]))

    def summary(self) -> str:
        """How many trials ended, the best of them, and the time that is left."""
        records = self._journal.records
        done = [record for record in records.values() if record.state != "failed"]
        best = max(done, key=lambda record: record.best(self._metric), default=None)
        told = f", best validation {self._metric} {best.best(self._metric):.4f} (trial {best.number})" if best else ""
        here = len(records) - self._before
        spent = time.monotonic() - self._begun
        left = f", about {spent / here * (self._total - len(records)):.0f} s left" if here else ""
        return f"{len(records)} of {self._total} trials{told}{left}"

    def _open(self, trial: Trial) -> list[dict[str, Any]]:
        """The proposals of one of Ray Tune's trials that have not ended."""
        return [proposal for proposal in trial.config["members"] if proposal["number"] not in self._journal.records]

    def _keep(self, record: Record) -> None:
        try:
            self._journal.append(record)
        except UserError as fault:
            self._journal.fault = fault
            return
        self._recorder.record(record)


def record_of(proposal: dict[str, Any], result: dict[str, Any]) -> Record:
    """What the journal keeps of a trial, from its proposal and the last report of it."""
    history = result.get("history", [])
    reason = result.get("failed") or ("" if history else "it ended without an evaluation")
    return Record(
        number=proposal["number"],
        point=proposal["point"],
        seed=proposal["seed"],
        parent=proposal["parent"],
        state="failed" if reason else "complete" if result["complete"] else "stopped early",
        reason=reason,
        history=history,
        measures=result.get("measures", {}),
        seconds=result.get("seconds", 0.0),
        ended=time.time(),
    )


def table(running: Sequence[tuple[dict[str, Any], dict[str, Any]]], metric: str, epochs: int) -> str:
    """The trials that run, as lines: proposals with their last reports."""
    rows = [["trial", "stage", metric, "time left", "point"]]
    for proposal, last in running[:SHOWN_TRIALS]:
        history = last.get("history") or []
        most = proposal["settings"].get("epochs", epochs)
        epoch = history[-1]["epoch"] if history else 0
        each = last.get("seconds", 0.0) / epoch if epoch else 0.0
        best = f"{max(at[metric] for at in history):.4f}" if history else ""
        left = f"≤ {each * (most - epoch):.0f} s" if epoch else ""
        rows.append([str(proposal["number"]), f"epoch {epoch}/{most}", best, left, point_text(proposal["point"])])
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
