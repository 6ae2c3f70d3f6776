"""Which trial comes next: decided by the seed and by trials that ended long enough ago, never by who came in first."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from statistics import median
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from pydantic import ValidationError

from cluster.config import describe
from cluster.errors import ConfigError, TrainingError
from student_train.config import TrainConfig
from student_train.distilled_student import check_sides
from tune.config import MINIMISED, Domain, Objective, TuneConfig, Value
from tune.journal import Record
from tune.space import Point, Space, grid, point_config

DEFAULT_TRIALS = 12
_MOST_CORNERS = 1000
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Proposal:
    """One trial to run."""

    number: int
    point: dict[str, Value]
    seed: int
    parent: int | None = None
    """The trial whose weights it starts from."""
    settings: dict[str, Value] = field(default_factory=dict)
    """What it changes in ``train`` beside the point."""
    bars: dict[int, float] = field(default_factory=dict)
    """What it has to reach at epochs, see :mod:`tune.halving`."""

    def as_dict(self) -> dict[str, Any]:
        """As Ray Tune carries it."""
        return asdict(self)


def proposal_config(train: TrainConfig, proposal: Mapping[str, Any]) -> TrainConfig:
    """What a proposal, as a dict, trains.

    Raises:
        TrainingError: training refuses it.
    """
    try:
        config = point_config(train, proposal["point"] | proposal["settings"] | {"seed": proposal["seed"]})
        if config.labels is not None:
            check_sides(config.model, config.distillation)
    except ValidationError as error:
        raise TrainingError(describe(error)) from error
    except ConfigError as error:
        raise TrainingError(str(error)) from error
    return config


def split(train: TrainConfig, batch: Sequence[Proposal]) -> list[list[Proposal]]:
    """Each proposal alone."""
    return [[proposal] for proposal in batch]


class Proposals(Protocol):
    """The trials of a search in their order."""

    total: int

    def known(self, number: int) -> int:
        """How many trials, counted from the first, have to end before trial ``number`` is proposed."""

    def propose(self, number: int, ended: Sequence[Record]) -> Proposal:
        """Trial ``number``; asked for in order. ``ended`` are the first ``known(number)`` trials."""


class Points:
    """Points of a grid, at random or by Optuna, each with every seed."""

    def __init__(self, config: TuneConfig, space: Space, starts: Sequence[Point]) -> None:
        self._config = config
        self._space = space
        self._points: list[dict[str, Value]] = []
        self._asked: list[optuna.Trial] = []
        self._told = 0
        self._study = _study(config)
        for start in starts:
            self._study.enqueue_trial(dict(start))
        self._distributions = {path: distribution(domain) for path, domain in space.items()}
        points = config.trials or DEFAULT_TRIALS
        if config.search.algorithm == "grid":
            self._points = list(islice(grid(space), config.trials))
            points = len(self._points)
        self.total = points * config.seeds

    def known(self, number: int) -> int:
        """See :class:`Proposals`; the last ``concurrent`` batches may still be running."""
        return max(0, number - self._config.concurrent + 1)

    def propose(self, number: int, ended: Sequence[Record]) -> Proposal:
        """See :class:`Proposals`."""
        point, seed = divmod(number, self._config.seeds)
        if point == len(self._points):
            self._tell(ended)
            self._points.append(self._ask())
        return Proposal(number, self._points[point], self._config.train.seed + seed)

    def _ask(self) -> dict[str, Value]:
        trial = self._study.ask(self._distributions)
        self._asked.append(trial)
        return dict(trial.params)

    def _tell(self, ended: Sequence[Record]) -> None:
        """Tell Optuna the medians of points whose seeds all ended, in their order."""
        seeds = self._config.seeds
        while (self._told + 1) * seeds <= len(ended):
            values = medians(ended[self._told * seeds :][:seeds], self._config.search.objectives)
            state = TrialState.FAIL if values is None else TrialState.COMPLETE
            self._study.tell(self._asked[self._told], values, state)
            self._told += 1


def medians(records: Sequence[Record], objectives: Sequence[Objective]) -> list[float] | None:
    """Medians over the seeds of one point, by objective; none if a seed failed."""
    if any(record.state == "failed" for record in records):
        return None
    return [median(record.best(name) for record in records) for name in objectives]


class Population:
    """Population based training (Jaderberg et al., 2017), in rounds.

    After each round the weakest members take over weights and values of the strongest, and move the values. A round
    waits for the one before it, so that results do not depend on who is faster.
    """

    def __init__(self, config: TuneConfig, space: Space, first: Points) -> None:
        self._config = config
        self._space = space
        self._first = first
        self._size = first.total
        self.total = self._size * config.pbt.rounds

    def known(self, number: int) -> int:
        """See :class:`Proposals`: all rounds before."""
        return number - number % self._size

    def propose(self, number: int, ended: Sequence[Record]) -> Proposal:
        """See :class:`Proposals`."""
        turn, member = divmod(number, self._size)
        settings: dict[str, Value] = {"epochs": (turn + 1) * self._config.pbt.epochs}
        if turn == 0:
            born = self._first.propose(number, [])
            return Proposal(number, born.point, born.seed, None, settings)
        before = ended[-self._size :]
        own = before[member]
        source = self._source(own, before, random.Random(f"{self._config.seed} {number}"))
        point = own.point if source is own else self._moved(source.point, number)
        parent = source.number if source.state != "failed" else None
        return Proposal(number, point, own.seed, parent, settings)

    def _source(self, own: Record, before: Sequence[Record], draw: random.Random) -> Record:
        """Whom a member goes on from: itself, or one of the strongest if it is among the weakest."""
        metric = self._config.search.objectives[0]
        ranked = sorted(before, key=lambda record: (_newest(record, metric), -record.number), reverse=True)
        share = max(1, round(self._config.pbt.quantile * len(ranked)))
        return draw.choice(ranked[:share]) if own in ranked[-share:] and len(ranked) > 1 else own

    def _moved(self, point: dict[str, Value], number: int) -> dict[str, Value]:
        """Every value drawn anew, or moved by a fifth up or down within its domain."""
        draw = random.Random(f"{self._config.seed} move {number}")
        fresh = _study(self._config, number).ask({path: distribution(d) for path, d in self._space.items()}).params
        return {
            path: fresh[path]
            if draw.random() < self._config.pbt.resample
            else _neighbour(self._space[path], value, draw)
            for path, value in point.items()
        }


def _newest(record: Record, metric: str) -> float:
    return record.history[-1][metric] if record.history and record.state != "failed" else float("-inf")


def _neighbour(domain: Domain, value: Value, draw: random.Random) -> Value:
    if domain.values is not None:
        at = domain.values.index(value) + draw.choice((-1, 1))
        return domain.values[min(max(at, 0), len(domain.values) - 1)]
    low, high = domain.ends()
    moved = min(max(float(value) * draw.choice((0.8, 1.2)), float(low)), float(high))  # type: ignore[arg-type]
    return round(moved) if domain.integer else moved


def _study(config: TuneConfig, salt: int = 0) -> optuna.Study:
    optuna_seed = random.Random(f"{config.seed} {salt}").getrandbits(32)
    tpe = config.search.algorithm == "optuna" and not salt
    directions = ["minimize" if name in MINIMISED else "maximize" for name in config.search.objectives]
    sampler = optuna.samplers.TPESampler(seed=optuna_seed) if tpe else optuna.samplers.RandomSampler(seed=optuna_seed)
    return optuna.create_study(sampler=sampler, directions=directions)


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's form of a domain."""
    if domain.values is not None:
        return CategoricalDistribution(domain.values)
    low, high = domain.ends()
    kind = IntDistribution if domain.integer else FloatDistribution
    return kind(low, high, log=domain.log)


def proposals(config: TuneConfig, space: Space, starts: Sequence[Point]) -> Proposals:
    """The trials that a config asks for; ``starts`` are the points that come first."""
    points = Points(config, space, starts)
    return Population(config, space, points) if config.search.scheduler == "pbt" else points
