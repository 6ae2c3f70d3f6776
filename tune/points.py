"""Which settings a search tries: a grid in turn, at random, or by Optuna's TPE; none is trained twice."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from pydantic import ValidationError
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from cluster.console import say
from cluster.errors import ConfigError
from cluster.identity import deciding
from cluster.run_record import flatten
from student_train.config import TrainConfig, value_at
from tune.config import MINIMISED, Domain, TuneConfig, Value
from tune.journal import Journal, Record, read_journal
from tune.space import Point, Space, grid, identity, point_config

DEFAULT_TRIALS = 12
TAKEN = 5  # points of an earlier search
_ASKED_IN_VAIN = 50
_COUNTED = 2_000  # largest space whose points are counted
IN_LOSS = ("lam", "ed_weight", "cloze", "temperature", "gamma_position", "gamma_confidence")
VARYING = {"learning_rate", "weight_decay", *(f"distillation.{name}" for name in IN_LOSS)}
"""Fields that members of a bracket may differ in; each is above zero for all of them or for none."""
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Remembered(Searcher):
    """A searcher that Ray Tune need not save: the journal holds all there is."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class Points(Remembered, OptunaSearch):
    """Ray Tune's searcher over Optuna, which knows the journal: what ended is no trial again, what began comes first.

    Random points and grids come through it too, so that all of them resume and leave out doubles in one way.
    """

    def __init__(self, config: TuneConfig, train: TrainConfig, space: Space, journal: Journal) -> None:
        self._train, self._journal = train, journal
        self._distributions = {path: distribution(domain) for path, domain in space.items()}
        self.objectives = config.search.objectives
        self.total = total(config, train, space)
        super().__init__(
            self._distributions,
            metric=list(self.objectives),
            mode=["min" if name in MINIMISED else "max" for name in self.objectives],
            sampler=_sampler(config),
            points_to_evaluate=[record.point for record in journal.open]
            + (list(grid(space)) if config.search.algorithm == "grid" else journal.notes["starts"]),
        )
        self._open = {identity(train, record.point): record for record in journal.open}
        self._tried = {identity(train, record.point) for record in journal.records.values()}
        for record in journal.ended:
            self._ot_study.add_trial(past_trial(record, self._distributions, self.objectives))

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial, kept in the journal from now on."""
        if not self._open and len(self._journal.records) >= self.total:
            return OptunaSearch.FINISHED
        record = self._resumed_or_new(trial_id)
        self._journal.append(record)
        return {"number": record.number, "point": record.point, "checkpoint": record.checkpoint}

    def _resumed_or_new(self, trial_id: str) -> Record:
        point = super().suggest(trial_id)
        for asked in range(10_000):
            name = identity(self._train, point)
            if name in self._open:
                return self._open.pop(name)
            if name not in self._tried:
                break
            self._ot_study.tell(self._ot_trials.pop(trial_id), state=TrialState.FAIL)
            if asked == _ASKED_IN_VAIN:
                self._ot_study.sampler = optuna.samplers.RandomSampler(seed=len(self._tried))
            point = super().suggest(trial_id)
        self._tried.add(name)
        return Record(number=max(self._journal.records, default=-1) + 1, point=point)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass the figures of a trial on to Optuna."""
        failed = error or result is None or any(name not in result for name in self.objectives)
        super().on_trial_complete(trial_id, None if failed else result, failed)


class Brackets(Remembered):
    """Puts proposals that train alike into brackets."""

    def __init__(self, points: Points, train: TrainConfig, journal: Journal, size: int) -> None:
        super().__init__()
        self._points, self._train, self._journal, self._size = points, train, journal, size
        self._waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._members: dict[str, list[dict[str, Any]]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The largest bracket that is at hand."""
        for name in (f"{trial_id} {place}" for place in range(self._size)):
            found = self._points.suggest(name)
            if isinstance(found, str):
                break
            self._waiting[self._kind(found)].append(found | {"name": name})
        if not self._waiting:
            return Searcher.FINISHED
        members = self._waiting.pop(max(self._waiting, key=lambda kind: len(self._waiting[kind])))
        self._members[trial_id] = members
        return {"number": members[0]["number"], "members": members, "checkpoint": members[0]["checkpoint"]}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass the figures of all members on."""
        for member in self._members.pop(trial_id):
            record = self._journal.records[member["number"]]
            done = record.state in ("complete", "stopped early")
            self._points.on_trial_complete(
                member["name"], {str(name): record.best(name) for name in self._points.objectives} if done else None
            )

    def _kind(self, found: dict[str, Any]) -> str:
        """Equal for points that train alike: of one checkpoint, and with the same parts of the loss."""
        try:
            settings = flatten(deciding(point_config(self._train, found["point"])))
        except ValidationError:
            return f"refused {found['number']}"
        alike = {name: bool(float(value)) if name in VARYING else value for name, value in settings.items()}
        return repr((found["checkpoint"], sorted(alike.items())))


def total(config: TuneConfig, train: TrainConfig, space: Space) -> int:
    """How many settings a search tries; of a small space of values not more than it holds."""
    wanted, everything = config.trials or DEFAULT_TRIALS, config.search.algorithm == "grid"
    sizes = [len(values) if (values := every(domain)) else math.inf for domain in space.values()]
    if not everything and math.prod(sizes) > _COUNTED:
        return wanted
    whole = {path: Domain(values=every(domain)) for path, domain in space.items()}
    distinct = len({identity(train, point) for point in grid(whole)})
    return distinct if everything and not config.trials else min(wanted, distinct)


def every(domain: Domain) -> tuple[Value, ...] | None:
    """All values of a domain; none where it has fractions."""
    if domain.values is None and domain.integer:
        low, high = domain.ends()
        return tuple(range(int(low), int(high) + 1))  # type: ignore[arg-type]
    return domain.values


def _sampler(config: TuneConfig) -> optuna.samplers.BaseSampler:
    seed = random.Random(f"{config.seed}").getrandbits(32)
    if config.search.algorithm == "optuna":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=seed)


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's form of a domain."""
    if domain.values is not None:
        return CategoricalDistribution(domain.values)
    low, high = domain.ends()
    kind = IntDistribution if domain.integer else FloatDistribution
    return kind(low, high, log=domain.log)


def past_trial(
    record: Record, distributions: dict[str, BaseDistribution], objectives: Sequence[str]
) -> optuna.trial.FrozenTrial:
    """A trial that ended, as Optuna knows it."""
    failed = record.state == "failed"
    return optuna.create_trial(
        state=TrialState.FAIL if failed else TrialState.COMPLETE,
        values=None if failed else [record.best(name) for name in objectives],
        params=record.point,
        distributions=distributions,
    )


def starting_points(config: TuneConfig, train: TrainConfig, space: Space) -> list[Point]:
    """The points that a search tries first: the train section's own, then the best of an earlier search.

    A field that the earlier search did not vary has the train section's value. How many of its points lie outside the
    space is printed.

    Raises:
        ConfigError: ``start_from`` holds no search, or none of its points lies in the space.
    """
    own = {path: value_at(train, path) for path in space}
    starts: list[Point] = [own] if _holds(space, own) else []
    if config.start_from:
        earlier = _ranked(config.start_from, config.search.objectives[0])
        points = [{path: record.point.get(path, own[path]) for path in space} for record in earlier]
        held = [point for point in points if _holds(space, point)]
        outside = f"{len(points) - len(held)} of its {len(points)} points lie outside this search's space"
        if not held:
            raise ConfigError(f"`start_from` = {config.start_from}: {outside}")
        say(f"{config.start_from}: {outside}; the best {min(TAKEN, len(held))} of the others come first")
        starts += held[:TAKEN]
    return starts


def _ranked(directory: Path, metric: str) -> list[Record]:
    records = [record for record in read_journal(directory)[1] if record.state != "failed"]
    if not records:
        raise ConfigError(f"`start_from` = {directory} holds no search: give the output directory of a `dllm2rec tune`")
    return sorted(records, key=lambda record: record.best(metric), reverse=True)


def _holds(space: Space, point: Point) -> bool:
    return all(space[path].holds(value) for path, value in point.items())
