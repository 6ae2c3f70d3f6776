"""The pictures of a search; each is written as a file and gives its path, or none where there is nothing to show."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median

import numpy as np
import optuna
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cluster.storage import Manifest
from tune.config import Domain, Objective, Value
from tune.journal import Record
from tune.outcome import Outcome
from tune.proposals import distribution
from tune.space import Space

LAM, ED_WEIGHT = "distillation.lam", "distillation.ed_weight"
BINS = 8
_UNITS = {"size": "size (parameters)", "latency": "latency (ms for one history)"}


def champion(folder: Path, student: Manifest, plain: Manifest) -> Path:
    """Test HR@20 and NDCG@20 with their 95 % bootstrap intervals."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    for at, metric in enumerate(("hr@20", "ndcg@20"), 1):
        axes = figure.add_subplot(1, 2, at)
        for place, (name, made) in enumerate((("plain", plain), ("champion", student))):
            value, low, high = (made.metrics[f"test_{metric}{end}"] for end in ("", "_low", "_high"))
            errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.bar(place, value, 0.6, yerr=errors, capsize=6, color=("#9aa5b1", "#1f6f8b")[place], label=name)
            axes.annotate(f"{value:.4f}", (place, 0), ha="center", va="bottom", color="white")
        axes.set_xticks([0, 1], ["plain", "champion"])
        axes.set_ylabel(f"{metric.upper()} (test, 95 % interval)")
    return _saved(figure, folder / "champion.png")


def best_so_far(folder: Path, records: Sequence[Record], metric: str) -> Path:
    """Every trial's best evaluation, and the best of all so far, over the training time spent on all trials."""
    done = sorted((record for record in records if record.state != "failed"), key=lambda record: record.ended)
    before: dict[int | None, float] = {None: 0.0} | {record.number: record.seconds for record in records}
    spent = list(accumulate(record.seconds - before[record.parent] for record in done))
    values = [record.best(metric) for record in done]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    colours = ["tab:orange" if record.state == "stopped early" else "tab:blue" for record in done]
    axes.scatter(spent, values, c=colours, s=14)
    axes.step(spent, list(accumulate(values, max)), where="post", color="black", linewidth=1.2)
    axes.set_xlabel("training time of all trials, s (orange: stopped early)")
    axes.set_ylabel(f"validation {metric.upper()}")
    return _saved(figure, folder / "best_so_far.png")


def parallel_coordinates(folder: Path, space: Space, outcomes: Sequence[Outcome], metric: str) -> Path:
    """A line per point through its values, coloured by its figure, the best on top."""
    names = list(space)
    figure = Figure(figsize=(max(6, 1.8 * len(names) + 2), 4.5), layout="constrained")
    axes = figure.add_subplot()
    figures = [outcome.values[0] for outcome in outcomes]
    colours = ScalarMappable(Normalize(min(figures), max(figures)), "viridis")
    for outcome in sorted(outcomes, key=lambda outcome: outcome.values[0]):
        heights = [_height(space[name], outcome.point[name]) for name in names]
        axes.plot(
            range(len(names)),
            heights,
            "o-",
            color=colours.to_rgba(np.array(outcome.values[0])),
            linewidth=1,
            markersize=3,
        )
    for at, name in enumerate(names):
        ends = space[name].ends()
        axes.axvline(at, color="grey", linewidth=0.5)
        for value in ends if space[name].values is not None else (ends[0], ends[-1]):
            text = f"{value:g}" if isinstance(value, float) else str(value)
            axes.annotate(text, (at, _height(space[name], value)), fontsize=8, ha="right")
    axes.set_xticks(range(len(names)), [name.rpartition(".")[2] for name in names], rotation=15)
    axes.set_yticks([])
    figure.colorbar(colours, ax=axes, label=f"validation {metric.upper()}")
    return _saved(figure, folder / "points.png")


def importance(folder: Path, space: Space, outcomes: Sequence[Outcome], metric: str) -> Path | None:
    """How much each field matters for reaching good figures (PED-ANOVA; Watanabe et al., 2023); sums to 1."""
    if len(outcomes) < 4 or len({outcome.values[0] for outcome in outcomes}) < 2:
        return None
    study = optuna.create_study(direction="maximize")
    domains = {name: distribution(domain) for name, domain in space.items()}
    for outcome in outcomes:
        study.add_trial(optuna.create_trial(params=outcome.point, distributions=domains, value=outcome.values[0]))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    figure = Figure(figsize=(7, 0.45 * len(shares) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(list(shares)[::-1], list(shares.values())[::-1], color="#1f6f8b")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.margins(x=0.12)
    axes.set_xlabel(f"share in validation {metric.upper()} (PED-ANOVA)")
    return _saved(figure, folder / "importance.png")


def heat_map(folder: Path, space: Space, outcomes: Sequence[Outcome], metric: str) -> Path | None:
    """The median figure of the points in each cell of λ × ed_weight."""
    if LAM not in space or ED_WEIGHT not in space:
        return None
    columns, rows = _edges(space[LAM]), _edges(space[ED_WEIGHT])
    cells: dict[tuple[int, int], list[float]] = {}
    for outcome in outcomes:
        place = (_cell(rows, outcome.point[ED_WEIGHT]), _cell(columns, outcome.point[LAM]))
        cells.setdefault(place, []).append(outcome.values[0])
    table = np.full((len(rows) - 1, len(columns) - 1), np.nan)
    for place, values in cells.items():
        table[place] = median(values)
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot()
    mesh = axes.pcolormesh(columns, rows, table, cmap="viridis")
    for set_scale, name in ((axes.set_xscale, LAM), (axes.set_yscale, ED_WEIGHT)):
        set_scale("log" if space[name].log else "linear")
    axes.set_xlabel("λ (distillation.lam)")
    axes.set_ylabel(ED_WEIGHT)
    figure.colorbar(mesh, ax=axes, label=f"median validation {metric.upper()}")
    return _saved(figure, folder / "lam_ed_weight.png")


def front(folder: Path, outcomes: Sequence[Outcome], objectives: Sequence[Objective]) -> Path | None:
    """Points by both objectives; those that no other beats in both are joined."""
    if len(objectives) < 2:
        return None
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter([o.values[1] for o in outcomes], [o.values[0] for o in outcomes], color="#9aa5b1", s=16)
    best = sorted((o.values[1], o.values[0]) for o in outcomes if o.best_in_kind)
    axes.plot([x for x, _ in best], [y for _, y in best], "o-", color="#1f6f8b")
    axes.set_xlabel(_UNITS.get(objectives[1], f"validation {objectives[1].upper()}"))
    axes.set_ylabel(f"validation {objectives[0].upper()}")
    return _saved(figure, folder / "front.png")


def _height(domain: Domain, value: Value) -> float:
    """Where a value stands between the ends of its domain, in [0, 1]."""
    if domain.values is not None:
        return domain.values.index(value) / max(1, len(domain.values) - 1)
    low, high, own = (float(number) for number in (*domain.ends(), value))  # type: ignore[arg-type]
    if domain.log:
        low, high, own = math.log(low), math.log(high), math.log(own)
    return (own - low) / (high - low)


def _edges(domain: Domain) -> np.ndarray:
    """Edges of the cells along one axis: around each value, or BINS even parts of the range."""
    if domain.values is not None:
        values = np.sort(np.array(domain.values, dtype=float))
        middles = (values[1:] + values[:-1]) / 2
        margin = (values[-1] - values[0]) / max(1, 2 * (len(values) - 1)) or 0.5
        return np.concatenate([[values[0] - margin], middles, [values[-1] + margin]])
    low, high = (float(end) for end in domain.ends())  # type: ignore[arg-type]
    return np.geomspace(low, high, BINS + 1) if domain.log else np.linspace(low, high, BINS + 1)


def _cell(edges: np.ndarray, value: Value) -> int:
    place = bisect_right(edges.tolist(), float(value)) - 1  # type: ignore[arg-type]
    return min(max(place, 0), len(edges) - 2)


def _saved(figure: Figure, file: Path) -> Path:
    figure.savefig(file, dpi=120)
    return file
