"""How the points of a search ended: medians over their seeds, and which is best."""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import ConfigError
from tune.config import MINIMISED, TuneConfig, Value
from tune.journal import Record
from tune.proposals import medians


@dataclass(frozen=True)
class Outcome:
    """A point with its trials, one per seed."""

    point: dict[str, Value]
    records: tuple[Record, ...]
    """The trials that did not fail."""
    values: list[float]
    """Medians over the seeds, by objective."""
    whole: bool
    """Whether no seed failed."""
    best_in_kind: bool = True
    """Whether no other point is better in one objective and as good in the others (the Pareto front)."""


def outcomes_of(records: Sequence[Record], config: TuneConfig) -> list[Outcome]:
    """The points of which a trial at least did not fail, in the order of their proposals; in PBT every step is one.

    Raises:
        ConfigError: every trial failed.
    """
    objectives = config.search.objectives
    seeds = 1 if config.search.scheduler == "pbt" else config.seeds
    found = []
    for at in range(0, len(records), seeds):
        done = tuple(record for record in records[at : at + seeds] if record.state != "failed")
        values = medians(done, objectives) if done else None
        if values:
            found.append(Outcome(records[at].point, done, values, len(done) == seeds))
    if not found:
        raise ConfigError(f"all {len(records)} trials failed; the first one: {records[0].reason}")
    signs = [-1 if name in MINIMISED else 1 for name in objectives]
    goods = [[sign * value for sign, value in zip(signs, outcome.values, strict=True)] for outcome in found]
    return [
        Outcome(o.point, o.records, o.values, o.whole, not any(_beats(other, own) for other in goods))
        for o, own in zip(found, goods, strict=True)
    ]


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The best by the first objective; a point of which a seed failed is passed over, unless that holds for all."""
    whole = [outcome for outcome in outcomes if outcome.whole] or outcomes
    return max(whole, key=lambda outcome: outcome.values[0])


def _beats(other: Sequence[float], own: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(other, own, strict=True)) and list(other) != list(own)
