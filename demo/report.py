"""The report of a demo: an HTML page with the table and pictures of quality, speed and learning."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from demo.figures import Figures, table
from tune.report import REPORT_FILE, bars, colour, spread, write_page

__all__ = ["REPORT_FILE", "write_report"]


def write_report(
    directory: Path,
    title: str,
    protocol: str,
    lines: Sequence[Figures],
    curves: Mapping[str, Path],
    answer: Sequence[str],
) -> None:
    """Write ``report.html`` and its pictures into ``directory``.

    Args:
        directory: existing directory.
        title: what was run.
        protocol: how the figures were taken.
        lines: yardsticks, then teachers, then students.
        curves: learning-curve files by student.
        answer: the shown history and the recommended titles, as text lines.
    """
    panels = {m.upper(): {line.name: spread(line.metrics[m]) for line in lines} for m in ("hr@20", "ndcg@20")}
    drawn = {
        "Quality on test": ("quality.png", bars(panels, "test")),
        "Quality against time": ("speed.png", _speed(lines)),
        "Learning": ("learning.png", _learning(curves)),
    }
    lead = f"Protocol: {protocol}; selection on validation NDCG@20, test evaluated once."
    write_page(directory, title, lead, table(lines), drawn, {"Recommendations": "\n".join(answer)})


def _speed(lines: Sequence[Figures]) -> Figure:
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    timed = [line for line in lines if line.parameters]
    for place, line in enumerate(sorted(timed, key=lambda line: line.mean("ndcg@20"))):
        at = (sum(line.seconds) / len(line.seconds), line.mean("ndcg@20"))
        # Neighbours in quality are named above and below their points in turn, so that names stay apart.
        offset = (6, 5 if place % 2 else -11)
        axes.scatter(*at, color=colour(line.name), s=60)
        axes.annotate(line.name, at, xytext=offset, textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.25)
    axes.set_xlabel("seconds over the test set (log scale)")
    axes.set_ylabel("NDCG@20 (test)")
    return figure


def _learning(curves: Mapping[str, Path]) -> Figure:
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, file in curves.items():
        records = json.loads(file.read_text())
        style = "--" if name.endswith("plain") else "-"
        axes.plot([r["epoch"] for r in records], [r["ndcg@20"] for r in records], style, label=name, linewidth=1.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("NDCG@20 (validation)")
    axes.legend(fontsize=8, frameon=False)
    return figure
