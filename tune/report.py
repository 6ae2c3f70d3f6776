"""The page that searches, comparisons and the demo end with: a table, pictures, a text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from jinja2 import Environment
from matplotlib.figure import Figure

from cluster.files import write_text, written

REPORT_FILE = "report.html"
COLOURS = {"teacher": "#d1495b", "plain": "#9aa5b1", "distilled": "#1f6f8b"}
Table = Sequence[Sequence[str]]
"""Rows of cells, header first."""

_TEMPLATE = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }
  table { border-collapse: collapse }
  td, th { padding: .25em .8em; text-align: right; border-bottom: 1px solid #ddd }
  td:first-child { text-align: left }
  img { max-width: 100% }
</style>
<h1>{{ title }}</h1>
<p>{{ lead }}</p>
<table>
  <tr>{% for cell in table[0] %}<th>{{ cell }}</th>{% endfor %}</tr>
  {% for row in table[1:] %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
  {% endfor %}
</table>
{% for name, file in pictures.items() %}<h2>{{ name }}</h2>
<img src="{{ file }}" alt="{{ name }}">
{% endfor %}
{% for name, text in texts.items() %}<h2>{{ name }}</h2>
<pre>{{ text }}</pre>
{% endfor %}
</html>
""")


def write_page(
    folder: Path,
    title: str,
    lead: str,
    table: Table,
    figures: Mapping[str, tuple[str, Figure]],
    texts: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write ``report.html`` and its pictures.

    Args:
        folder: existing directory.
        title: of the page.
        lead: first paragraph.
        table: header first.
        figures: file name and picture by heading.
        texts: preformatted texts by heading.

    Returns:
        The files written.
    """
    for name, figure in figures.values():
        with written(folder / name) as aside:
            figure.savefig(aside, dpi=120, bbox_inches="tight")
    pictures = {heading: name for heading, (name, _) in figures.items()}
    page = _TEMPLATE.render(title=title, lead=lead, table=table, pictures=pictures, texts=texts or {})
    write_text(folder / REPORT_FILE, page)
    return [folder / REPORT_FILE, *(folder / name for name in pictures.values())]


class Bar(NamedTuple):
    """A value with the ends of its error bar."""

    value: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Bar:
    """The mean, and the standard deviation to both sides where there are several values."""
    mean, error = fmean(values), stdev(values) if len(values) > 1 else 0.0
    return Bar(mean, mean - error, mean + error)


def mean_text(values: Sequence[float], digits: int = 4) -> str:
    """The mean as text, with the standard deviation where there are several values."""
    return f"{fmean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def bars(panels: Mapping[str, Mapping[str, Bar]], label: str) -> Figure:
    """Horizontal bars by name, one panel beside the other, on one scale."""
    names = list(next(iter(panels.values())))
    figure = Figure(figsize=(1.5 + 3.4 * len(panels), 1.2 + 0.34 * len(names)), layout="constrained")
    found = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(found, panels.items(), strict=True):
        errors = [[max(0.0, bar.value - bar.low) for bar in values.values()]]
        errors.append([max(0.0, bar.high - bar.value) for bar in values.values()])
        drawn = axes.barh(
            list(values),
            [bar.value for bar in values.values()],
            xerr=errors if any(map(any, errors)) else None,
            color=[colour(name) for name in values],
            ecolor="#333333",
            capsize=2,
        )
        axes.bar_label(drawn, [f"{bar.value:.3g}" for bar in values.values()], padding=3, fontsize=8)
        axes.axvline(0, color="#333333", linewidth=0.8)
        axes.margins(x=0.15)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    found[0].invert_yaxis()
    figure.supxlabel(label, fontsize=10)
    return figure


def colour(name: str) -> str:
    """Of a teacher, a plain student or a yardstick, and any other."""
    if name.startswith("teacher"):
        return COLOURS["teacher"]
    return COLOURS["plain" if name.endswith("plain") or name.startswith("to beat") else "distilled"]
