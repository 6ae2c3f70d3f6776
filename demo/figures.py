"""The figures of teacher and students as one table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import mean

import pyarrow.parquet as pq
from safetensors import safe_open

from cluster.storage import Manifest, read_manifest
from cluster.text import aligned
from data_prep.schema import ITEMS_FILE
from data_prep.yardsticks import yardsticks
from tune.report import mean_text

COLUMNS = {"hr@5": "HR@5", "hr@20": "HR@20", "ndcg@5": "NDCG@5", "ndcg@20": "NDCG@20", "unseen_hr@20": "HR@20 unseen"}
"""Test metrics and their headings; the last counts the rows alone whose target no training row has."""


@dataclass(frozen=True)
class Figures:
    """One line of the table: test metrics, seconds over the test set and parameters, one value per seed."""

    name: str
    metrics: dict[str, list[float]]
    seconds: list[float]
    parameters: int
    """0 for a yardstick, whose seconds are not a number."""
    validation: float
    """Mean validation NDCG@20, by which students are chosen."""

    def mean(self, metric: str) -> float:
        """Mean over seeds."""
        return mean(self.metrics[metric])

    def cell(self, metric: str) -> str:
        """Mean, with the standard deviation where there are several seeds."""
        values = self.metrics[metric]
        return "–" if math.isnan(values[0]) else mean_text(values)


def teacher_figures(name: str, labels: Path, dataset: Path, model: Path) -> Figures:
    """A teacher's own line, from the labels it gave."""
    manifest = read_manifest(labels, "label")
    unseen = {"test_unseen_hr@20": _unseen_hits(labels, dataset)}
    manifest = manifest.model_copy(update={"metrics": manifest.metrics | unseen})
    return _figures(name, [manifest], _parameters(model))


def yardstick_figures(dataset: Path) -> list[Figures]:
    """Lines of what is had without a teacher or a student, which students have to beat."""
    measured = read_manifest(dataset, "prepare").metrics
    return [
        Figures(
            f"to beat: {name}",
            {metric: [found.get(metric, math.nan)] for metric in COLUMNS},
            [math.nan],
            0,
            measured[f"{name}_validation_ndcg@20"],
        )
        for name, found in yardsticks(measured, "test").items()
    ]


def _unseen_hits(labels: Path, dataset: Path) -> float:
    """HR@20 of the lists of test rows whose target is no train row's; not a number where there are none."""
    counts = pq.read_table(dataset / ITEMS_FILE, columns=["train_count"])["train_count"].to_numpy()
    rows = pq.read_table(dataset / "sequences" / "test", columns=["row_id", "target"]).to_pydict()
    target_of = dict(zip(rows["row_id"], rows["target"], strict=True))
    lists = pq.read_table(labels / "labels" / "test", columns=["row_id", "items"]).to_pydict()
    hits = [
        target_of[row_id] in items[:20]
        for row_id, items in zip(lists["row_id"], lists["items"], strict=True)
        if not counts[target_of[row_id]]
    ]
    return mean(hits) if hits else math.nan


def student_figures(name: str, directories: Sequence[Path]) -> Figures:
    """A student's line, from the directories of its seeds."""
    manifests = [read_manifest(directory, "train") for directory in directories]
    return _figures(name, manifests, manifests[0].counts["parameters"])


def render(lines: Sequence[Figures]) -> str:
    """The table as text."""
    return aligned(table(lines))


def table(lines: Sequence[Figures]) -> list[list[str]]:
    """The table's cells, header first."""
    rows = [[one.name, *map(one.cell, COLUMNS), *_cost(one)] for one in lines]
    return [["", *COLUMNS.values(), "test s", "parameters"], *rows]


def _cost(line: Figures) -> list[str]:
    return [f"{mean(line.seconds):.2f}", f"{line.parameters:,}"] if line.parameters else ["–", "–"]


def _figures(name: str, manifests: list[Manifest], parameters: int) -> Figures:
    return Figures(
        name,
        {metric: [manifest.metrics.get(f"test_{metric}", math.nan) for manifest in manifests] for metric in COLUMNS},
        [manifest.metrics["test_seconds"] for manifest in manifests],
        parameters,
        mean(manifest.metrics["validation_ndcg@20"] for manifest in manifests),
    )


def _parameters(model: Path) -> int:
    """Number of weights in a model directory's safetensors files."""
    total = 0
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118  # not a mapping
                total += prod(weights.get_slice(name).get_shape())
    return total
