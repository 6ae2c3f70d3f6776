"""What a search leaves to read: the table of its trials, the best config, pictures, and a page that shows them."""

import csv
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tune import pictures
from tune.champion import Crowned
from tune.config import TuneConfig
from tune.follow import point_text
from tune.journal import Record
from tune.outcome import Outcome
from tune.space import Space

TABLE_FILE = "trials.csv"
BEST_CONFIG_FILE = "best_config.yaml"
REPORT_FILE = "report.html"
SHOWN_POINTS = 10
_METRICS = ("ndcg@20", "hr@20")


def write_report(
    config: TuneConfig, space: Space, records: Sequence[Record], outcomes: Sequence[Outcome], crowned: Crowned
) -> list[Path]:
    """Write ``trials.csv``, ``best_config.yaml`` (for ``dllm2rec train --config``), pictures and ``report.html``.

    Returns:
        The files written.
    """
    folder, objectives = config.output, config.search.objectives
    _write_table(folder / TABLE_FILE, records)
    section = {"train": crowned.config.model_dump(mode="json")}
    (folder / BEST_CONFIG_FILE).write_text(yaml.safe_dump(section, sort_keys=False), encoding="utf-8")
    shown = {
        "The champion beside the plain student": pictures.champion(folder, crowned.student, crowned.plain),
        "Best so far": pictures.best_so_far(folder, records, objectives[0]),
        "Points": pictures.parallel_coordinates(folder, space, outcomes, objectives[0]),
        "Importance of each field": pictures.importance(folder, space, outcomes, objectives[0]),
        "λ × ed_weight": pictures.heat_map(folder, space, outcomes, objectives[0]),
        "Best of two objectives": pictures.front(folder, outcomes, objectives),
    }
    drawn = {title: picture for title, picture in shown.items() if picture}
    (folder / REPORT_FILE).write_text(_page(config, records, outcomes, drawn), encoding="utf-8")
    return [folder / TABLE_FILE, folder / BEST_CONFIG_FILE, folder / REPORT_FILE, *drawn.values()]


def _write_table(file: Path, records: Sequence[Record]) -> None:
    """A row per trial with the figures of its best evaluation."""
    measures = [name for name in ("size", "latency") if any(name in record.measures for record in records)]
    ends = ["state", "epochs", "best_epoch", "seconds", "parent", "reason"]
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        figures = [f"validation_{name}" for name in _METRICS]
        table.writerow(["trial", *records[0].point, "seed", *figures, *measures, *ends])
        for record in records:
            best = max(record.history, key=lambda at: at["ndcg@20"], default={})
            end = record.history[-1]["epoch"] if record.history else 0
            row: list[Any] = [record.number, *record.point.values(), record.seed]
            row += [best.get(name, "") for name in _METRICS] + [record.measures.get(name, "") for name in measures]
            row += [record.state, end, best.get("epoch", 0), f"{record.seconds:.2f}", record.parent, record.reason]
            table.writerow(row)


def _page(config: TuneConfig, records: Sequence[Record], outcomes: Sequence[Outcome], drawn: dict[str, Path]) -> str:
    objectives = config.search.objectives
    ranked = sorted(outcomes, key=lambda outcome: outcome.values[0], reverse=True)[:SHOWN_POINTS]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("point", *objectives, "on the front"))
    body = "".join(
        f"<tr><td>{html.escape(point_text(outcome.point))}</td>"
        + "".join(f"<td>{value:.4g}</td>" for value in outcome.values)
        + f"<td>{'yes' if outcome.best_in_kind else ''}</td></tr>"
        for outcome in ranked
    )
    images = "".join(
        f"<h2>{html.escape(title)}</h2><img src='{file.name}' alt='{html.escape(title)}'>"
        for title, file in drawn.items()
    )
    stopped, failed = (sum(record.state == state for record in records) for state in ("stopped early", "failed"))
    how = f"{config.search.algorithm}, scheduler {config.search.scheduler}, median over {config.seeds} seeds"
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>dllm2rec search</title><style>"
        "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
        "table{border-collapse:collapse}td,th{padding:.25em .8em;text-align:right;border-bottom:1px solid #ddd}"
        "td:first-child{text-align:left}img{max-width:100%}</style>"
        f"<h1>Search {html.escape(config.output.name)}</h1><p>{len(records)} trials ({stopped} stopped early, {failed} "
        f"failed); {how}. All figures but those of the champion and the plain student are of validation.</p>"
        f"<table><tr>{head}</tr>{body}</table>{images}</html>\n"
    )
