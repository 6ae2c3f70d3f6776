"""Follows a search from the driver: a line per finished trial, and an MLflow run per trial under the search's run."""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from cluster.tracking import Run, RunStatus, Tracker
from tune.trial import BEST, COMPLETE, EPOCH, METRIC

_REPORTED = ("validation_", "best_", "loss")


class Follow(tune.Callback):
    """Ray Tune calls this in the driver, so that one process alone writes to the MLflow store."""

    def __init__(self, tracker: Tracker, parent: str, total: int) -> None:
        self._tracker = tracker
        self._parent = parent
        self._total = total
        self._runs: dict[str, Run] = {}
        self._numbers: dict[str, int] = {}
        self._ended = 0
        self._best = 0.0

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Open the trial's run and record its point."""
        self._open(trial)

    def _open(self, trial: Trial) -> None:
        if trial.trial_id in self._runs:
            return
        self._numbers[trial.trial_id] = len(self._numbers) + 1
        self._runs[trial.trial_id] = self._tracker.open_run(f"trial {len(self._numbers)}", parent=self._parent)
        self._runs[trial.trial_id].log_params(trial.config)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ANN401
    ) -> None:
        """Record the figures of one evaluation."""
        figures = {name: value for name, value in result.items() if name.startswith(_REPORTED)}
        self._runs[trial.trial_id].log_metrics(figures, step=result[EPOCH])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Close the run of a trial that trained to its end or was stopped early."""
        last = trial.last_result
        self._best = max(self._best, last[BEST])
        self._end(trial, "FINISHED", state_of(last), f"{METRIC} {last[BEST]:.4f} after {last[EPOCH]} epochs")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ANN401
        """Close the run of a trial that failed, perhaps before it started."""
        self._open(trial)
        self._end(trial, "FAILED", "failed", reason_of(trial.get_error()))

    def _end(self, trial: Trial, status: RunStatus, state: str, figure: str) -> None:
        run = self._runs[trial.trial_id]
        run.set_tags({"state": state})
        run.finish(status)
        self._ended += 1
        point = ", ".join(f"{name} {value:.3g}" for name, value in trial.config.items())
        print(
            f"{self._ended} of {self._total} trials: trial {self._numbers[trial.trial_id]} {state}, {figure}, "
            f"best so far {self._best:.4f} ({point})",
            flush=True,
        )


def state_of(last: dict[str, Any]) -> str:
    """Whether a trial with this last report trained to its end."""
    return "complete" if last[COMPLETE] else "stopped early"


def reason_of(error: BaseException | None) -> str:
    """The last line of a trial's error, which Ray wraps in the worker's traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1][:300] if error and lines else "no reason given"
