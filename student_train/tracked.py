"""A training as an MLflow run; imported only where one is asked for, since no worker needs MLflow."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.console import say
from cluster.mlflow_client import ServerAway
from cluster.storage import read_manifest
from cluster.tracking import Tracker
from model_registry.register import register_student
from student_train.config import TrainConfig
from student_train.outcome import CURVE_FILE

_BY_EPOCH = "validation_"


def tracked(config: TrainConfig, inputs: Mapping[str, str], training: Callable[[], Path]) -> Path:
    """Train, and record settings, fingerprints of the inputs, the metrics of every epoch and the final ones.

    The student is registered if ``config.register_as`` names a model; a server that is away puts that off.

    Raises:
        ConfigError: the tracking server refuses.
    """
    tracker = Tracker(config.tracking)
    with tracker.run(f"train {config.model.name}") as run:
        run.log_params(config)
        run.set_tags({f"fingerprint.{name}": value for name, value in inputs.items()})
        output = training()
        for record in json.loads((output / CURVE_FILE).read_text()):
            epoch = record.pop("epoch")
            named = {name if name == "loss" else f"{_BY_EPOCH}{name}": value for name, value in record.items()}
            run.log_metrics(named, step=epoch)
        final = read_manifest(output).metrics
        run.log_metrics({f"best_{n}" if n.startswith(_BY_EPOCH) else n: value for n, value in final.items()})
        if config.register_as:
            say(_registered(tracker, output, config.register_as, run.id))
    return output


def _registered(tracker: Tracker, student: Path, name: str, parent: str) -> str:
    try:
        version = register_student(tracker, student, name, parent)
    except ServerAway as error:
        return f"not registered ({error}): later, run `dllm2rec register --student {student} --name {name}`"
    return f"registered as {version.name} version {version.version}"
