"""Successive halving that gives the same result whoever comes in first (Li et al., 2020, ASHA).

A trial that reaches a rung is compared with the earlier trials that its proposal could know, all of which have ended.
Ray Tune's own ASHA compares with whatever has arrived, so that a busy machine or a restart changes which trials stop.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune.config import AshaConfig
from tune.journal import Record

History = Sequence[dict[str, float]]


def rungs(config: AshaConfig) -> list[int]:
    """Epochs at which trials are compared."""
    found, epoch = [], float(config.grace)
    while epoch < config.max_epochs:
        found.append(round(epoch))
        epoch *= config.reduction
    return found


def stops(config: AshaConfig, metric: str, history: History, earlier: Iterable[Record]) -> bool:
    """Whether a trial with these evaluations is too weak to go on.

    Args:
        config: where rungs lie.
        metric: larger is better.
        history: its evaluations so far.
        earlier: the trials it is compared with; failed ones do not count.
    """
    passed = [epoch for epoch in rungs(config) if epoch <= history[-1]["epoch"]]
    before = history[-2]["epoch"] if len(history) > 1 else 0
    if not passed or before >= passed[-1]:
        return False
    own = _best_until(history, passed[-1], metric)
    others = [
        _best_until(record.history, passed[-1], metric)
        for record in earlier
        if record.state != "failed" and record.history[-1]["epoch"] >= passed[-1]
    ]
    go_on = max(1, int((len(others) + 1) / config.reduction))
    return sum(other > own for other in others) >= go_on


def _best_until(history: History, epoch: int, metric: str) -> float:
    """The best evaluation up to a rung; where none fell on it, up to the first one after it."""
    end = next(at["epoch"] for at in history if at["epoch"] >= epoch)
    return max(at[metric] for at in history if at["epoch"] <= end)


class Halving(FIFOScheduler):
    """Asks :func:`stops` after every report."""

    def __init__(self, config: AshaConfig, metric: str, earlier: Callable[[int], Sequence[Record]]) -> None:
        """``earlier`` gives the trials that trial ``number`` is compared with."""
        super().__init__()
        self._config = config
        self._metric = metric
        self._earlier = earlier

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401
        """Ray Tune's question what to do with a trial that reported."""
        history = result.get("history")
        if not history or "failed" in result:
            return TrialScheduler.CONTINUE
        weak = stops(self._config, self._metric, history, self._earlier(trial.config["number"]))
        return TrialScheduler.STOP if weak else TrialScheduler.CONTINUE
