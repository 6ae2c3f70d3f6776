"""Successive halving that gives the same result whoever comes in first (after ASHA, Li et al., 2020).

A trial that reaches a rung is compared with the earlier trials that its proposal could know, all of which have ended.
Ray Tune's own ASHA compares with whatever has arrived, so that a busy machine or a restart changes which trials stop.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune.config import AshaConfig
from tune.journal import Record

History = Sequence[dict[str, float]]


class Rungs:
    """What trials had reached at the epochs where they are compared."""

    def __init__(self, config: AshaConfig, metric: str) -> None:
        """``metric`` is larger for better trials."""
        self.epochs = rung_epochs(config)
        self.learned = 0
        """Trials learned so far."""
        self._metric = metric
        self._reduction = config.reduction
        self._numbers: dict[int, list[int]] = {epoch: [] for epoch in self.epochs}
        self._values: dict[int, list[float]] = {epoch: [] for epoch in self.epochs}

    def learn(self, record: Record) -> None:
        """Note the next trial, in order of numbers; a failed one does not count."""
        self.learned += 1
        for epoch in self.epochs:
            if record.state != "failed" and record.history[-1]["epoch"] >= epoch:
                self._numbers[epoch].append(record.number)
                self._values[epoch].append(self._until(record.history, epoch))

    def weak(self, history: History, known: int) -> bool:
        """Whether a trial that has just come to a rung is not among the best there.

        Args:
            history: its evaluations so far.
            known: it is compared with the trials below this number.
        """
        passed = [epoch for epoch in self.epochs if epoch <= history[-1]["epoch"]]
        before = history[-2]["epoch"] if len(history) > 1 else 0
        if not passed or before >= passed[-1]:
            return False
        count = bisect_left(self._numbers[passed[-1]], known)
        own = self._until(history, passed[-1])
        better = sum(other > own for other in self._values[passed[-1]][:count])
        return better >= max(1, int((count + 1) / self._reduction))

    def _until(self, history: History, epoch: int) -> float:
        """The best evaluation up to a rung; where none fell on it, up to the first one after it."""
        end = next(at["epoch"] for at in history if at["epoch"] >= epoch)
        return max(at[self._metric] for at in history if at["epoch"] <= end)


def rung_epochs(config: AshaConfig) -> list[int]:
    """Epochs at which trials are compared."""
    found, epoch = [], float(config.grace)
    while epoch < config.max_epochs:
        found.append(round(epoch))
        epoch *= config.reduction
    return found


class Halving(FIFOScheduler):
    """Asks :class:`Rungs` after every report."""

    def __init__(self, rungs: Rungs, known: Callable[[int], int], records: Mapping[int, Record]) -> None:
        """``known`` says how many trials, counted from the first, trial ``number`` is compared with."""
        super().__init__()
        self._rungs = rungs
        self._known = known
        self._records = records

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401
        """Ray Tune's question what to do with a trial that reported."""
        if not result.get("history"):
            return TrialScheduler.CONTINUE
        known = self._known(trial.config["number"])
        while self._rungs.learned < known:
            self._rungs.learn(self._records[self._rungs.learned])
        return TrialScheduler.STOP if self._rungs.weak(result["history"], known) else TrialScheduler.CONTINUE
