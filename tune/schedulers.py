"""Which trials continue: Ray Tune's schedulers, which know from the journal what happened before a search resumed."""

import math
import random
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining

from tune.config import AshaConfig, Domain, TuneConfig, Value
from tune.journal import Journal, Progress
from tune.space import Space


class _Queue(FIFOScheduler):
    """Leaves every actor that is starting to the trial that waits for it.

    Ray Tune's own choice gives that trial the next actor that comes free and ends the one that is starting. With trials
    that are shorter than a start, only one actor would ever be at work.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:  # noqa: ANN401
        """None: Ray Tune starts the trials that have no actor yet, in their order."""


class EveryTrial(_Queue):
    """Trains all trials to their end."""


class Halving(_Queue, ASHAScheduler):
    """Asynchronous successive halving; its rungs are filled from the journal."""

    def __init__(self, config: AshaConfig, metric: str, journal: Journal) -> None:
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode="max",
            max_t=config.max_epochs,
            grace_period=config.grace,
            reduction_factor=config.reduction,
        )
        self._journal = journal
        for record in journal.ended:
            self.on_trial_add(
                None, SimpleNamespace(trial_id=f"ended {record.number}", config={"number": record.number})
            )

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:  # noqa: ANN401
        """Repeat what is known of a trial."""
        super().on_trial_add(tune_controller, trial)
        for known in stages(self._journal.records[trial.config["number"]]):
            report = {"epoch": known.epoch, self._metric: known.best(self._metric)}
            super().on_trial_result(tune_controller, trial, report)


def stages(progress: Progress) -> list[Progress]:
    """A trial as it stood after each of its evaluations."""
    epochs = sorted({int(at["epoch"]) for history in progress.histories.values() for at in history})
    return [
        Progress(
            histories={
                seed: [at for at in history if at["epoch"] <= epoch] for seed, history in progress.histories.items()
            }
        )
        for epoch in epochs
    ]


class Population(PopulationBasedTraining):
    """Population based training (Jaderberg et al., 2017); members that were stopped resume with their own values."""

    def __init__(self, config: TuneConfig, space: Space, journal: Journal) -> None:
        super().__init__(
            time_attr="round",
            metric="newest",
            mode="max",
            perturbation_interval=1,
            quantile_fraction=config.pbt.quantile,
            custom_explore_fn=lambda taken: (
                taken | {"point": moved(taken["point"], space, config.pbt.resample), "parent": taken["number"]}
            ),
            log_config=False,
        )
        self._journal = journal

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ANN401
        """Give a member its point and its checkpoint."""
        if "point" not in trial.config:
            record = self._journal.records[trial.config["number"]]
            trial.set_config(trial.config | record.model_dump(include={"point", "checkpoint"}))
        super().on_trial_add(tune_controller, trial)


def moved(point: Mapping[str, Value], space: Space, resample: float) -> dict[str, Value]:
    """Every value drawn again, or moved by a fifth within its domain: a whole number by at least one."""
    return {
        path: _drawn(space[path]) if random.random() < resample else _neighbour(space[path], value)
        for path, value in point.items()
    }


def _drawn(domain: Domain) -> Value:
    if domain.values is not None:
        return random.choice(domain.values)
    low, high = map(float, domain.ends())  # type: ignore[arg-type]
    value = math.exp(random.uniform(math.log(low), math.log(high))) if domain.log else random.uniform(low, high)
    return round(value) if domain.integer else value


def _neighbour(domain: Domain, value: Value) -> Value:
    if domain.values is not None:
        at = domain.values.index(value)
        return random.choice(
            [domain.values[near] for near in (at - 1, at + 1) if 0 <= near < len(domain.values)] or [value]
        )
    low, high = map(float, domain.ends())  # type: ignore[arg-type]
    now = float(value)  # type: ignore[arg-type]
    step = max(1, round(0.2 * abs(now))) if domain.integer else 0.2 * abs(now)
    near = random.choice([end for end in (max(now - step, low), min(now + step, high)) if end != now] or [now])
    return int(near) if domain.integer else near
