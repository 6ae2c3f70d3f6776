"""The tables and pictures of a comparison."""

import csv
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cluster.storage import Manifest, read_manifest
from cluster.text import aligned
from data_prep.metrics import CUTOFFS
from student_train.evaluation import protocol
from tune.compare_config import PLAIN
from tune.compare_runs import Result, Run

RESULTS_FILE, REPORT_FILE = "results.csv", "report.md"
RANKING = [f"{name}@{k}" for name in ("hr", "ndcg") for k in CUTOFFS]
SHOWN = ("hr@20", "ndcg@20", "mrr@20", "head_hr@20", "tail_hr@20", "unseen_hr@20", "coverage@20", "overlap@20")
ABLATED = " without "

Cells = dict[tuple[str, str], list[Result]]
"""Results of all seeds by student and strategy, in the order of the comparison."""


def write_report(
    directory: Path,
    results: Mapping[Run, Result],
    labels: Manifest | None,
    others: Mapping[str, Mapping[str, float]],
) -> tuple[list[Path], str]:
    """Write ``results.csv``, ``report.md`` and the pictures; return their paths and the table as text.

    Args:
        directory: where to.
        results: of every training.
        labels: the teacher's manifest, with its own metrics.
        others: the data set's yardsticks, with their test metrics.
    """
    students = list(dict.fromkeys(run.student for run in results))
    ordered = sorted(results, key=lambda run: students.index(run.student))
    cells: Cells = defaultdict(list)
    for run in ordered:
        cells[run.student, run.strategy].append(results[run])
    write_csv(directory / RESULTS_FILE, results)
    table = _table(cells)
    first = next(iter(results)).config
    how = protocol(first.filter_history, read_manifest(first.dataset, "prepare").config)
    teacher = _teacher(labels) + "".join(_figures(f"To beat, {name}", metrics) for name, metrics in others.items())
    (directory / REPORT_FILE).write_text(
        f"Test set, {how}; selection on validation NDCG@20; mean ± standard deviation over seeds.\n{teacher}\n"
        f"{_markdown(table)}\n",
        encoding="utf-8",
    )
    pictures = [_gains(directory, cells), _overlap(directory, cells), _ablation(directory, cells)]
    written = [directory / RESULTS_FILE, directory / REPORT_FILE, *(path for path in pictures if path)]
    return written, f"Test set, {how}:\n{teacher}\n{aligned(table, left=(0, 1))}"


def write_csv(file: Path, results: Mapping[Run, Result]) -> None:
    """A row per training and split."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(
            ["student", "loss", "strategy", "embedding", "seed", "split"]
            + [name.upper() for name in RANKING]
            + ["epochs", "seconds"]
        )
        for run, result in results.items():
            for split in ("validation", "test"):
                figures = [f"{result.metrics[f'{split}_{name}']:.6f}" for name in RANKING]
                ends = [result.counts["epochs"], f"{result.metrics['train_seconds']:.1f}"]
                name = [run.student, run.loss, run.strategy, run.embedding, run.seed, split]
                table.writerow([*name, *figures, *ends])


def gains(cells: Cells, student: str, strategy: str, metric: str = "test_hr@20") -> list[float]:
    """Gain of each seed over the mean of the plain student, in percent."""
    plain = fmean(result.metrics[metric] for result in cells[student, PLAIN])
    return [100 * (result.metrics[metric] / plain - 1) for result in cells[student, strategy]]


def _table(cells: Cells) -> list[list[str]]:
    shown = [name for name in SHOWN if all(f"test_{name}" in r.metrics for rs in cells.values() for r in rs)]
    rows = [["student", "strategy", *(name.upper() for name in shown), "gain HR@20 %", "gain NDCG@20 %"]]
    for student, strategy in cells:
        values = [_cell([r.metrics[f"test_{name}"] for r in cells[student, strategy]], 4) for name in shown]
        gained = [
            "" if strategy == PLAIN else _cell(gains(cells, student, strategy, f"test_{metric}"), 1)
            for metric in ("hr@20", "ndcg@20")
        ]
        rows.append([student, strategy, *values, *gained])
    return rows


def _cell(values: Sequence[float], digits: int) -> str:
    return f"{fmean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def _teacher(labels: Manifest | None) -> str:
    if labels is None or "test_hr@20" not in labels.metrics:
        return ""
    figures = {name: labels.metrics[f"test_{name}"] for name in ("hr@20", "ndcg@20")}
    return _figures(f"Teacher {Path(labels.config['teacher']).name} ({labels.config['ranking']})", figures)


def _figures(who: str, metrics: Mapping[str, float]) -> str:
    return f"{who}: HR@20 {metrics['hr@20']:.4f}, NDCG@20 {metrics['ndcg@20']:.4f}.\n"


def _markdown(table: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(row) for row in table]
    return "\n".join(f"| {line} |" for line in [lines[0], " | ".join("---" for _ in table[0]), *lines[1:]])


def _gains(directory: Path, cells: Cells) -> Path | None:
    strategies = [s for s in _strategies(cells) if s != PLAIN and ABLATED not in s]
    return _bars(
        directory / "gains.png",
        cells,
        strategies,
        "gain in HR@20 over the plain student, % (test)",
        lambda student, strategy: gains(cells, student, strategy),
    )


def _overlap(directory: Path, cells: Cells) -> Path | None:
    if not all("test_overlap@20" in r.metrics for rs in cells.values() for r in rs):
        return None
    strategies = [s for s in _strategies(cells) if ABLATED not in s]
    return _bars(
        directory / "overlap.png",
        cells,
        strategies,
        "share of the teacher's top 20 in the student's (test)",
        lambda student, strategy: [r.metrics["test_overlap@20"] for r in cells[student, strategy]],
    )


def _ablation(directory: Path, cells: Cells) -> Path | None:
    ablations = [s for s in _strategies(cells) if ABLATED in s]
    whole = dict.fromkeys(s.partition(ABLATED)[0] for s in ablations)
    return _bars(
        directory / "ablation.png",
        cells,
        [*(s for s in whole if s in _strategies(cells)), *ablations],
        "HR@20 (test)",
        lambda student, strategy: [r.metrics["test_hr@20"] for r in cells[student, strategy]],
    )


def _strategies(cells: Cells) -> list[str]:
    return list(dict.fromkeys(strategy for _, strategy in cells))


def _bars(
    file: Path, cells: Cells, strategies: Sequence[str], label: str, values: Callable[[str, str], list[float]]
) -> Path | None:
    """Horizontal bars per strategy, one panel per student, with the standard deviation over seeds."""
    if not strategies:
        return None
    students = list(dict.fromkeys(student for student, _ in cells))
    figure = Figure(figsize=(1.5 + 3.4 * len(students), 1.2 + 0.34 * len(strategies)), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, len(students), sharex=True, sharey=True, squeeze=False)[0])
    for axes, student in zip(panels, students, strict=True):
        found = [values(student, strategy) for strategy in strategies]
        spread = [stdev(v) if len(v) > 1 else 0.0 for v in found]
        axes.barh(strategies, [fmean(v) for v in found], xerr=spread, color="#1f6f8b", ecolor="#333333", capsize=2)
        axes.axvline(0, color="#333333", linewidth=0.8)
        axes.set_title(student, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.supxlabel(label, fontsize=10)
    figure.savefig(file, dpi=120)
    return file
