"""Successive halving that gives the same result whoever comes in first (after ASHA, Li et al., 2020).

A trial that reaches a rung is compared with the earlier trials that its proposal could know. All of those have ended
when it begins, so that it is told then what it has to reach, and ends itself. Ray Tune's own ASHA compares with
whatever has arrived, so that a busy machine or a restart changes which trials stop; and it cannot stop one member of
those that train together.
"""

from collections.abc import Mapping, Sequence

from tune.config import AshaConfig
from tune.journal import Record

History = Sequence[Mapping[str, float]]
Bars = Mapping[int, float]
"""What a trial has to reach, by epoch, to go on."""


class Rungs:
    """What trials had reached at the epochs where they are compared."""

    def __init__(self, config: AshaConfig, metric: str) -> None:
        """``metric`` is larger for better trials."""
        self.epochs = rung_epochs(config)
        self._metric = metric
        self._reduction = config.reduction
        self._values: dict[int, list[float]] = {epoch: [] for epoch in self.epochs}

    def learn(self, record: Record) -> None:
        """Note a trial that ended; a failed one does not count."""
        for epoch in self.epochs:
            if record.state != "failed" and record.history[-1]["epoch"] >= epoch:
                self._values[epoch].append(_until(record.history, epoch, self._metric))

    def bars(self) -> dict[int, float]:
        """What a trial has to reach at the rungs, compared with those noted; a rung that none came to has no bar."""
        found = {}
        for epoch, values in self._values.items():
            going_on = max(1, int((len(values) + 1) / self._reduction))
            if values:
                found[epoch] = sorted(values, reverse=True)[going_on - 1]
        return found


def weak(history: History, bars: Bars, metric: str) -> bool:
    """Whether a trial has just come to a rung and missed its bar there.

    Args:
        history: its evaluations so far.
        bars: by epoch.
        metric: the bars are of; larger for better trials.
    """
    now, before = history[-1]["epoch"], history[-2]["epoch"] if len(history) > 1 else 0
    passed = [epoch for epoch in bars if before < epoch <= now]
    return bool(passed) and _until(history, max(passed), metric) < bars[max(passed)]


def _until(history: History, epoch: int, metric: str) -> float:
    """The best evaluation up to a rung; where none fell on it, up to the first one after it."""
    end = next(at["epoch"] for at in history if at["epoch"] >= epoch)
    return max(at[metric] for at in history if at["epoch"] <= end)


def rung_epochs(config: AshaConfig) -> list[int]:
    """Epochs at which trials are compared."""
    found, epoch = [], float(config.grace)
    while epoch < config.max_epochs:
        found.append(round(epoch))
        epoch *= config.reduction
    return list(dict.fromkeys(found))
