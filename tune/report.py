"""What a search leaves: the table of its trials, the best config, and a picture."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml
from matplotlib.figure import Figure
from ray.tune import ResultGrid

from cluster.errors import ConfigError
from student_train.config import TrainConfig
from tune.follow import reason_of, state_of
from tune.trial import BEST, EPOCH, METRIC

TRIALS_FILE = "trials.csv"
BEST_CONFIG_FILE = "best_config.yaml"
PICTURE_FILE = "trials.png"
_ENDS = ("state", "epochs", "best_epoch", "seconds")
_COLOURS = {"complete": "tab:blue", "stopped early": "tab:orange"}


@dataclass(frozen=True)
class Outcome:
    """How one trial ended; the figures are those of its best epoch on validation."""

    point: dict[str, float]
    seed: int
    state: str
    epochs: int
    best_epoch: int
    ndcg: float
    hr: float
    seconds: float


def outcomes_of(grid: ResultGrid) -> list[Outcome]:
    """The trials that reported at least once and did not fail, in the order of their sampling.

    Raises:
        ConfigError: every trial failed.
    """
    done = [result.metrics for result in grid if result.error is None and result.metrics and BEST in result.metrics]
    if not done:
        reason = reason_of(grid.errors[0] if grid.errors else None)
        raise ConfigError(f"all {len(grid)} trials failed; the first one: {reason}")
    return [
        Outcome(
            point={name: value for name, value in last["config"].items() if name != "seed"},
            seed=last["config"]["seed"],
            state=state_of(last),
            epochs=last[EPOCH],
            best_epoch=last["best_epoch"],
            ndcg=last[BEST],
            hr=last["best_validation_hr@20"],
            seconds=last["seconds"],
        )
        for last in done
    ]


def best_point(outcomes: Sequence[Outcome], seeds: int) -> tuple[dict[str, float], float]:
    """The point with the largest validation NDCG@20, averaged over its seeds, and that average.

    A point of which a seed failed is passed over, unless that holds for all.
    """
    by_point: dict[tuple[tuple[str, float], ...], list[float]] = defaultdict(list)
    for outcome in outcomes:
        by_point[tuple(outcome.point.items())].append(outcome.ndcg)
    whole = {point: figures for point, figures in by_point.items() if len(figures) == seeds} or by_point
    best = max(whole, key=lambda point: fmean(whole[point]))
    return dict(best), fmean(whole[best])


def write_report(directory: Path, outcomes: Sequence[Outcome], best: TrainConfig) -> None:
    """Write ``trials.csv``, ``best_config.yaml`` (for ``dllm2rec train --config``) and ``trials.png``."""
    with (directory / TRIALS_FILE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*outcomes[0].point, "seed", METRIC, "validation_hr@20", *_ENDS])
        for trial in outcomes:
            ends = [getattr(trial, name) for name in _ENDS]
            table.writerow([*trial.point.values(), trial.seed, trial.ndcg, trial.hr, *ends])
    section = {"train": best.model_dump(mode="json")}
    (directory / BEST_CONFIG_FILE).write_text(yaml.safe_dump(section, sort_keys=False), encoding="utf-8")
    draw(directory / PICTURE_FILE, outcomes)


def draw(file: Path, outcomes: Sequence[Outcome]) -> None:
    """One panel per searched parameter: its value against the validation NDCG@20 of every trial."""
    names = list(outcomes[0].point)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    for panel, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, columns, panel)
        for state, colour in _COLOURS.items():
            of_state = [trial for trial in outcomes if trial.state == state]
            axes.scatter([t.point[name] for t in of_state], [t.ndcg for t in of_state], c=colour, label=state)
        axes.set_xlabel(name)
        axes.set_ylabel("validation NDCG@20")
    figure.axes[0].legend()
    figure.savefig(file, dpi=120)
