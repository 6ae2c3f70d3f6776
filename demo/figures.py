"""The figures of teacher and students as one table."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import mean, stdev

from safetensors import safe_open

from cluster.storage import Manifest, read_manifest
from cluster.text import aligned

COLUMNS = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20")


@dataclass(frozen=True)
class Figures:
    """One line of the table: test metrics, seconds over the test set and parameters, one value per seed."""

    name: str
    metrics: dict[str, list[float]]
    seconds: list[float]
    parameters: int
    validation: float
    """Mean validation NDCG@20, by which students are chosen."""

    def mean(self, metric: str) -> float:
        """Mean over seeds."""
        return mean(self.metrics[metric])

    def cell(self, metric: str) -> str:
        """Mean, with the standard deviation where there are several seeds."""
        values = self.metrics[metric]
        return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def teacher_figures(labels: Path, model: Path) -> Figures:
    """The teacher's own line, from the labels it gave."""
    return _figures("teacher", [read_manifest(labels, "label")], _parameters(model))


def student_figures(name: str, directories: Sequence[Path]) -> Figures:
    """A student's line, from the directories of its seeds."""
    manifests = [read_manifest(directory, "train") for directory in directories]
    return _figures(name, manifests, manifests[0].counts["parameters"])


def render(lines: Sequence[Figures]) -> str:
    """The table as text."""
    header = ["", *(name.upper() for name in COLUMNS), "test s", "parameters"]
    return aligned([header, *map(row, lines)])


def row(line: Figures) -> list[str]:
    """One line's cells."""
    return [line.name, *map(line.cell, COLUMNS), f"{mean(line.seconds):.2f}", f"{line.parameters:,}"]


def _figures(name: str, manifests: list[Manifest], parameters: int) -> Figures:
    return Figures(
        name,
        {metric: [manifest.metrics[f"test_{metric}"] for manifest in manifests] for metric in COLUMNS},
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
