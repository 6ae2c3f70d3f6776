"""A training as an MLflow run: while it is under way, and as its student directory holds it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from cluster.errors import StaleInputError
from cluster.identity import digest
from cluster.run_record import RunRecord
from cluster.storage import read_manifest
from student_train.config import TrainConfig
from student_train.outcome import CURVE_FILE

_VALIDATION = "validation_"


def training_run(config: TrainConfig, inputs: Mapping[str, str], parent: RunRecord | None = None) -> RunRecord:
    """The run of a training that begins.

    Args:
        config: of the training.
        inputs: fingerprints by name.
        parent: the run that it stands under.
    """
    return RunRecord(
        key=f"train-{digest(config, inputs)}",
        name=f"train {config.model.name}",
        parent=parent,
        params=config,
        tags={f"fingerprint.{name}": value for name, value in inputs.items()},
    )


def student_run(directory: Path, parent: RunRecord | None = None) -> RunRecord:
    """The run of the training that made a student directory, complete.

    Raises:
        StaleInputError: the directory holds no finished student, or one with settings of another version.
    """
    manifest = read_manifest(directory, "train")
    try:
        config = TrainConfig.model_validate(manifest.config)
    except ValidationError as error:
        raise StaleInputError(f"{directory} was made by another version: run `dllm2rec train` again") from error
    curve, ended = directory / CURVE_FILE, manifest.created.timestamp()
    final = {f"best_{n}" if n.startswith(_VALIDATION) else n: value for n, value in manifest.metrics.items()}
    return replace(
        training_run(config, manifest.inputs, parent),
        curve=[at_epoch(entry) for entry in json.loads(curve.read_text())],
        metrics=final,
        status="FINISHED",
        result=manifest.fingerprint,
        started=ended - manifest.metrics.get("train_seconds", 0.0),
        ended=ended,
    )


def at_epoch(figures: Mapping[str, float]) -> tuple[int, dict[str, float]]:
    """Epoch and metrics of an entry of the learning curve."""
    named = {n if n == "loss" else f"{_VALIDATION}{n}": value for n, value in figures.items() if n != "epoch"}
    return int(figures["epoch"]), named
