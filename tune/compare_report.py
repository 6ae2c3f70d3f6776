"""The tables and pictures of a comparison."""

import csv
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from cluster.files import write_text, written
from cluster.storage import Manifest, read_manifest
from cluster.text import aligned
from data_prep.metrics import CUTOFFS
from student_train.config import TrainConfig, dro_weight
from student_train.evaluation import protocol
from tune.compare_config import PLAIN
from tune.journal import Record
from tune.report import bars, mean_text, spread, write_page

if TYPE_CHECKING:
    from tune.compare import Cell

RESULTS_FILE, TEXT_FILE = "results.csv", "report.md"
RANKING = [f"{name}@{k}" for name in ("hr", "ndcg") for k in CUTOFFS]
SHOWN = ("hr@20", "ndcg@20", "mrr@20", "head_hr@20", "tail_hr@20", "unseen_hr@20", "coverage@20", "overlap@20")
ABLATED = " without "

Groups = dict[tuple[str, str], list[dict[str, float]]]
"""Metrics of all seeds by student and strategy, in the order of the comparison."""
Values = Callable[[str, str], list[float]]
"""One number per seed, of a student and a strategy."""


def write_report(
    directory: Path,
    results: Mapping["Cell", Record],
    labels: Manifest | None,
    yardsticks: Mapping[str, Mapping[str, float]],
) -> tuple[list[Path], str]:
    """Write ``results.csv``, ``report.md``, ``report.html`` and the pictures; return their paths and the table as text.

    Args:
        directory: where to.
        results: of every training.
        labels: the teacher's manifest, with its own metrics.
        yardsticks: test metrics of what is had without a teacher or a student.
    """
    groups: Groups = defaultdict(list)
    models = list(dict.fromkeys(cell.model for cell in results))
    for cell in sorted(results, key=lambda cell: models.index(cell.model)):
        groups[cell.model, cell.strategy].append(results[cell].measures)
    write_csv(directory / RESULTS_FILE, results)
    table = _table(groups)
    first = next(iter(results)).config
    how = protocol(first.filter_history, read_manifest(first.dataset, "prepare").config)
    lead = f"Test set, {how}; selection on validation NDCG@20; mean ± standard deviation over seeds."
    others = _teacher(labels) + "".join(_line(f"To beat, {name}", found) for name, found in yardsticks.items())
    write_text(directory / TEXT_FILE, f"{lead}\n{others}\n{_markdown(table)}\n")
    page = write_page(directory, f"Comparison {directory.name}", lead, table, _figures(groups), {"Beside them": others})
    return [
        directory / RESULTS_FILE,
        directory / TEXT_FILE,
        *page,
    ], f"Test set, {how}:\n{others}\n{aligned(table, left=(0, 1))}"


def write_csv(file: Path, results: Mapping["Cell", Record]) -> None:
    """A row per training and split."""
    with written(file) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        names = ["model", "loss", "strategy", "embedding", "seed", "split"]
        table.writerow([*names, *(name.upper() for name in RANKING), "epochs", "seconds"])
        for cell, record in results.items():
            for split in ("validation", "test"):
                figures = [f"{record.measures[f'{split}_{name}']:.6f}" for name in RANKING]
                ends = [record.epoch, f"{record.seconds:.1f}"]
                row = [cell.model, loss_name(cell.config), cell.strategy, sides(cell.config), cell.seed, split]
                table.writerow([*row, *figures, *ends])


def loss_name(config: TrainConfig) -> str:
    """The student's own loss in a word."""
    return config.loss.name + ("+dro" if dro_weight(config) else "")


def sides(config: TrainConfig) -> str:
    """Which sides of the item table the teacher's embeddings join."""
    return config.distillation.embedding if config.distillation.ed_weight else "none"


def gains(groups: Groups, model: str, strategy: str, metric: str = "test_hr@20") -> list[float]:
    """Gain of each seed over the mean of the plain student, in percent."""
    plain = fmean(metrics[metric] for metrics in groups[model, PLAIN])
    return [100 * (metrics[metric] / plain - 1) for metrics in groups[model, strategy]]


def _table(groups: Groups) -> list[list[str]]:
    shown = [name for name in SHOWN if _everywhere(groups, name)]
    rows = [["model", "strategy", *(name.upper() for name in shown), "gain HR@20 %", "gain NDCG@20 %"]]
    for (model, strategy), seeds in groups.items():
        values = [mean_text([metrics[f"test_{name}"] for metrics in seeds]) for name in shown]
        gained = [
            "" if strategy == PLAIN else mean_text(gains(groups, model, strategy, f"test_{metric}"), 1)
            for metric in ("hr@20", "ndcg@20")
        ]
        rows.append([model, strategy, *values, *gained])
    return rows


def _everywhere(groups: Groups, name: str) -> bool:
    return all(f"test_{name}" in metrics for seeds in groups.values() for metrics in seeds)


def _teacher(labels: Manifest | None) -> str:
    if labels is None or "test_hr@20" not in labels.metrics:
        return ""
    figures = {name: labels.metrics[f"test_{name}"] for name in ("hr@20", "ndcg@20")}
    return _line(f"Teacher {Path(labels.config['teacher']).name} ({labels.config['ranking']})", figures)


def _line(who: str, metrics: Mapping[str, float]) -> str:
    return f"{who}: HR@20 {metrics['hr@20']:.4f}, NDCG@20 {metrics['ndcg@20']:.4f}.\n"


def _markdown(table: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(row) for row in table]
    return "\n".join(f"| {line} |" for line in [lines[0], " | ".join("---" for _ in table[0]), *lines[1:]])


def _figures(groups: Groups) -> dict[str, tuple[str, Figure]]:
    """Bars per strategy, one panel per student."""
    models, strategies = (list(dict.fromkeys(names)) for names in zip(*groups, strict=True))
    whole = [name for name in strategies if ABLATED not in name]
    parts = [name for name in strategies if ABLATED in name]
    ablated = [name for name in whole if any(part.startswith(name + ABLATED) for part in parts)]
    drawn: dict[str, tuple[str, Figure]] = {}

    def draw(heading: str, file: str, names: list[str], label: str, values: Values) -> None:
        if names:
            panels = {model: {name: spread(values(model, name)) for name in names} for model in models}
            drawn[heading] = (file, bars(panels, label))

    def of(metric: str) -> Values:
        return lambda model, strategy: [metrics[metric] for metrics in groups[model, strategy]]

    gained = "gain in HR@20 over the plain student, % (test)"
    draw("Gains", "gains.png", [name for name in whole if name != PLAIN], gained, lambda m, s: gains(groups, m, s))
    if _everywhere(groups, "overlap@20"):
        shared = "share of the teacher's top 20 in the student's (test)"
        draw("Overlap with the teacher", "overlap.png", whole, shared, of("test_overlap@20"))
    draw("Without its parts", "ablation.png", ablated + parts, "HR@20 (test)", of("test_hr@20"))
    return drawn
