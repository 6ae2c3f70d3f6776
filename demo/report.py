"""The report of a demo: an HTML page with the table and pictures of quality, speed and learning."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from demo.figures import COLUMNS, Figures, row

REPORT_FILE = "report.html"
TEACHER_COLOUR, PLAIN_COLOUR, DISTILLED_COLOUR = "#d1495b", "#9aa5b1", "#1f6f8b"


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
        lines: teacher first, then students.
        curves: learning-curve files by student.
        answer: the shown history and the recommended titles, as text lines.
    """
    pictures = {
        "Quality on test": _quality(directory, lines),
        "Quality against time": _speed(directory, lines),
        "Learning": _learning(directory, curves),
    }
    (directory / REPORT_FILE).write_text(_page(title, protocol, lines, pictures, answer), encoding="utf-8")


def _colour(name: str) -> str:
    if name.startswith("teacher"):
        return TEACHER_COLOUR
    return PLAIN_COLOUR if name.endswith("plain") else DISTILLED_COLOUR


def _quality(directory: Path, lines: Sequence[Figures]) -> str:
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.45 * len(lines) + 1.4), sharey=True)
    names = [line.name for line in lines]
    for axis, metric in zip(axes, ("hr@20", "ndcg@20"), strict=True):
        values = [line.mean(metric) for line in lines]
        bars = axis.barh(names, values, color=[_colour(name) for name in names])
        axis.bar_label(bars, fmt="%.3f", padding=3)
        axis.set_xlabel(f"{metric.upper()} (test)")
        axis.set_xlim(0, max(values) * 1.15)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    return _save(figure, directory / "quality.png")


def _speed(directory: Path, lines: Sequence[Figures]) -> str:
    figure, axis = plt.subplots(figsize=(7.5, 4.5))
    for place, line in enumerate(sorted(lines, key=lambda line: line.mean("ndcg@20"))):
        seconds = sum(line.seconds) / len(line.seconds)
        # Neighbours in quality are named above and below their points in turn, so that names stay apart.
        offset = (6, 5 if place % 2 else -11)
        axis.scatter(seconds, line.mean("ndcg@20"), color=_colour(line.name), s=60)
        axis.annotate(line.name, (seconds, line.mean("ndcg@20")), xytext=offset, textcoords="offset points", fontsize=8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.margins(x=0.25)
    axis.set_xlabel("seconds over the test set (log scale)")
    axis.set_ylabel("NDCG@20 (test)")
    axis.spines[["top", "right"]].set_visible(False)
    return _save(figure, directory / "speed.png")


def _learning(directory: Path, curves: Mapping[str, Path]) -> str:
    figure, axis = plt.subplots(figsize=(7.5, 4.5))
    for name, file in curves.items():
        records = json.loads(file.read_text())
        style = "--" if name.endswith("plain") else "-"
        axis.plot([r["epoch"] for r in records], [r["ndcg@20"] for r in records], style, label=name, linewidth=1.4)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch")
    axis.set_ylabel("NDCG@20 (validation)")
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return _save(figure, directory / "learning.png")


def _save(figure: plt.Figure, file: Path) -> str:
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)
    return file.name


def _page(
    title: str, protocol: str, lines: Sequence[Figures], pictures: Mapping[str, str], answer: Sequence[str]
) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *COLUMNS.values(), "test s", "parameters"))
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row(line)) + "</tr>" for line in lines)
    shown = "".join(
        f"<h2>{html.escape(name)}</h2><img src='{file}' alt='{html.escape(name)}'>" for name, file in pictures.items()
    )
    text = html.escape("\n".join(answer))
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title><style>"
        "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
        "table{border-collapse:collapse}td,th{padding:.25em .8em;text-align:right;border-bottom:1px solid #ddd}"
        "td:first-child{text-align:left}img{max-width:100%}</style>"
        f"<h1>{html.escape(title)}</h1><p>Protocol: {html.escape(protocol)}; selection on validation NDCG@20, test "
        f"evaluated once.</p><table><tr>{head}</tr>{body}</table>{shown}"
        f"<h2>Recommendations</h2><pre>{text}</pre></html>\n"
    )
