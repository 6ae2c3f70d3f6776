"""What a search leaves to read: the table of its trials, the best config, and a page with pictures."""

import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import optuna
import yaml
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.visualization import matplotlib as plots

from cluster.files import write_text, written
from cluster.storage import Manifest, read_manifest
from data_prep.yardsticks import best_yardstick
from tune.best import Champion
from tune.config import MINIMISED, TuneConfig
from tune.journal import Record
from tune.points import distribution, past_trial
from tune.report import Bar, bars, write_page
from tune.space import Space

TABLE_FILE, BEST_CONFIG_FILE = "trials.csv", "best_config.yaml"
SHOWN_POINTS = 10
_LAM, _ED_WEIGHT = "distillation.lam", "distillation.ed_weight"
_METRICS = ("ndcg@20", "hr@20")


def write_report(config: TuneConfig, space: Space, records: Sequence[Record], champion: Champion) -> list[Path]:
    """Write ``trials.csv``, ``best_config.yaml`` (for ``dllm2rec train --config``), pictures and ``report.html``.

    Returns:
        The files written.
    """
    folder = config.output
    write_table(folder / TABLE_FILE, records)
    section = {"train": champion.config.model_dump(mode="json")}
    write_text(folder / BEST_CONFIG_FILE, yaml.safe_dump(section, sort_keys=False))
    stopped, failed = (sum(record.state == state for record in records) for state in ("stopped early", "failed"))
    study = study_of(config, space, records)
    best = {trial.number for trial in study.best_trials}
    to_beat = best_yardstick(read_manifest(config.train.dataset).metrics, "validation")
    page = write_page(
        folder,
        f"Search {folder.name}",
        f"{len(records)} trials ({stopped} stopped early, {failed} failed); {config.search.algorithm}, scheduler "
        f"{config.search.scheduler}, median over {config.seeds} seeds. All figures but those of the champion and the "
        f"plain student are of validation. To beat there: {to_beat}.",
        [
            ["point", *config.search.objectives, "on the front"],
            *(
                [point_text(t.params), *(f"{value:.4g}" for value in t.values), "yes" if t.number in best else ""]
                for t in sorted(study.trials, key=lambda trial: -trial.values[0])[:SHOWN_POINTS]
            ),
        ],
        {"The champion beside the plain student": ("champion.png", _champion(champion))} | _figures(study, config),
    )
    return [folder / TABLE_FILE, folder / BEST_CONFIG_FILE, *page]


def write_table(file: Path, records: Sequence[Record]) -> None:
    """A row per trial and seed, with the figures of its best evaluation."""
    measures = [name for name in MINIMISED if any(name in record.measures for record in records)]
    with written(file) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        ends = ["state", "epochs", "best_epoch", "seconds", "parent", "reason"]
        table.writerow(["trial", *records[0].point, "seed", *(f"validation_{m}" for m in _METRICS), *measures, *ends])
        for record in records:
            for seed, history in record.histories.items() or [("", [])]:
                best = max(history, key=lambda at: at["ndcg@20"], default={})
                figures = [best.get(name, "") for name in _METRICS] + [
                    record.measures.get(name, "") for name in measures
                ]
                epochs = [history[-1]["epoch"] if history else 0, best.get("epoch", 0)]
                end = [record.state, *epochs, f"{record.seconds:.2f}", record.parent, record.reason]
                table.writerow([record.number, *record.point.values(), seed, *figures, *end])


def study_of(config: TuneConfig, space: Space, records: Sequence[Record]) -> optuna.Study:
    """The trials that did not fail, for Optuna's pictures."""
    objectives = config.search.objectives
    study = optuna.create_study(directions=["minimize" if name in MINIMISED else "maximize" for name in objectives])
    domains = {path: distribution(domain) for path, domain in space.items()}
    study.add_trials([past_trial(record, domains, objectives) for record in records if record.state != "failed"])
    return study


def _champion(champion: Champion) -> Figure:
    """Test metrics with their 95 % bootstrap intervals."""

    def bar(manifest: Manifest, metric: str) -> Bar:
        return Bar(*(manifest.metrics[f"test_{metric}{end}"] for end in ("", "_low", "_high")))

    students = {"plain": champion.plain, "champion": champion.student}
    panels = {m.upper(): {name: bar(made, m) for name, made in students.items()} for m in ("hr@20", "ndcg@20")}
    return bars(panels, "test, with 95 % intervals")


@matplotlib.rc_context()
def _figures(study: optuna.Study, config: TuneConfig) -> dict[str, tuple[str, Figure]]:
    """Optuna's pictures of a search, as far as there is something to show; its style stays with them."""
    matplotlib.use("Agg")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    names = list(config.search.objectives)
    first = {"target": lambda trial: trial.values[0]} if len(names) > 1 else {}
    named = {"target_name": f"validation {names[0]}"}
    drawn = {
        "Best so far": ("best_so_far.png", plots.plot_optimization_history(study, **first, **named)),
        "Points": ("points.png", plots.plot_parallel_coordinate(study, **first, **named)),
    }
    if len({trial.values[0] for trial in study.trials}) > 3:
        # With a target given it looks for low values.
        sought = {"target": lambda trial: -trial.values[0]} if first else {}
        evaluator = PedAnovaImportanceEvaluator(target_quantile=0.25)
        axes = plots.plot_param_importances(study, evaluator, **sought, **named)
        drawn["Importance of each field"] = ("importance.png", axes)
        if {_LAM, _ED_WEIGHT} <= set(study.trials[0].params):
            axes = plots.plot_contour(study, [_LAM, _ED_WEIGHT], **first, **named)
            drawn["λ × ed_weight"] = ("lam_ed_weight.png", axes)
    if first:
        drawn["Best of two objectives"] = ("front.png", plots.plot_pareto_front(study, target_names=names))
    for _, axes in drawn.values():
        pyplot.close(axes.figure)
    return {heading: (name, axes.figure) for heading, (name, axes) in drawn.items()}


def point_text(point: Mapping[str, Any]) -> str:
    """A point on one line, by the last part of its fields' paths."""
    shown = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in point.items()}
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in shown.items())
