"""Put a student directory into the MLflow registry."""

from importlib.metadata import version
from pathlib import Path

import pandas as pd

from cluster.errors import ModelError
from cluster.registry import ModelVersion, Registry, ServedModel
from cluster.storage import Manifest, fingerprint, read_manifest
from cluster.tracking import Tracker
from student_train.recommender import Recommender

SCRIPT = Path(__file__).with_name("pyfunc_model.py")
ROOMS = ("cluster", "data_prep", "student_train")
SERVING_PACKAGES = ("mlflow", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "torch", "tyro")
DEFAULT_PARAMS = {"k": 10, "exclude_history": True}


def register_student(tracker: Tracker, directory: Path, name: str, parent: str | None = None) -> ModelVersion:
    """Register a student as the next version of ``name``: signature, example, metrics, fingerprints as tags.

    The version is the output of a run of its own, nested under the run ``parent`` if given, that records the
    student's config and metrics.

    Raises:
        StaleInputError: the directory holds no finished student.
        ModelError: its files differ from those its manifest describes, or do not load.
        ConfigError: the tracking server does not answer.
    """
    manifest = read_manifest(directory, "train")
    if fingerprint(directory) != manifest.fingerprint:
        raise ModelError(f"{directory} was changed after it was written: run `dllm2rec train` again")
    model, tags = _served(directory), student_tags(manifest)
    with tracker.run(f"student {name}", parent=parent) as run:
        run.log_params(manifest.config)
        run.log_metrics(manifest.metrics)
        run.set_tags(tags)
        return Registry(tracker).register(run, name, model, tags)


def student_tags(manifest: Manifest) -> dict[str, str]:
    """The tags of a version: fingerprints of the student and of what it was made from, and its metrics."""
    made_from = {f"fingerprint.{name}": value for name, value in manifest.inputs.items()}
    return made_from | {"fingerprint.student": manifest.fingerprint} | {k: repr(v) for k, v in manifest.metrics.items()}


def _served(directory: Path) -> ServedModel:
    recommender = Recommender(directory)
    example = pd.DataFrame({"history": [recommender.recommend([[]], k=2)["titles"][0]]})
    home = SCRIPT.parent.parent
    return ServedModel(
        script=SCRIPT,
        artifacts={"student": directory},
        code=[home / room for room in ROOMS],
        requirements=[f"{package}=={version(package).split('+')[0]}" for package in SERVING_PACKAGES],
        example=example,
        answer=recommender.recommend(list(example["history"]), k=1),
        params=DEFAULT_PARAMS,
    )
