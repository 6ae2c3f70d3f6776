"""Students in the MLflow registry: put in, found, and pulled out again."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from cluster.console import say
from cluster.errors import ModelError
from cluster.run_record import RunRecord
from cluster.storage import Manifest, fingerprint, output_directory, read_manifest
from cluster.tracking import Tracker
from model_registry.versions import ModelVersion, Registry, ServedModel

# isort: split
# cluster.tracking sets the environment that MLflow reads when it is imported.
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, ColSpec, DataType

import student_serve
from data_prep.schema import STUDENT_WEIGHTS_FILE
from model_registry.champion import name_challenger
from model_registry.config import RegisterConfig
from student_serve.recommender import ITEMS_FILE, MODEL_FILE, Recommender
from student_train.student_run import student_run

SCRIPT = Path(student_serve.__file__).with_name("pyfunc_model.py")
STUDENT_ARTIFACT = "student"
VERSION_FILE = "version.json"
SERVING_PACKAGES = ("mlflow-skinny", "numpy", "onnxruntime", "pandas", "pyarrow")
DEFAULT_PARAMS = {"k": 10, "exclude_history": True}
_TEXTS, _NUMBERS = Array(DataType.string), Array(DataType.double)
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(_TEXTS, "history")]),
    outputs=Schema(
        [
            ColSpec(_TEXTS, "item_ids"),
            ColSpec(_TEXTS, "titles"),
            ColSpec(_NUMBERS, "scores"),
            ColSpec(_TEXTS, "skipped"),
        ]
    ),
    params=ParamSchema([ParamSpec("k", DataType.long, 10), ParamSpec("exclude_history", DataType.boolean, True)]),
)


def register(config: RegisterConfig) -> Path:
    """Register a student directory, and write down which version it became.

    Raises:
        StaleInputError, ModelError: see :func:`register_student`.
        ConfigError: the tracking server does not answer.
        OutputError: the output directory holds something else.
    """
    inputs = {"student": read_manifest(config.student, "train").fingerprint}
    with output_directory(
        config.output, verb="register", config=config, inputs=inputs, overwrite=config.overwrite
    ) as draft:
        made = register_student(Tracker(config.tracking), config.student, config.name)
        (draft.path / VERSION_FILE).write_text(json.dumps({"name": made.name, "version": made.version}) + "\n")
    say(f"registered as {made.name} version {made.version}")
    return config.output


def register_student(tracker: Tracker, directory: Path, name: str, parent: RunRecord | None = None) -> ModelVersion:
    """Register a student as the next version of ``name``: signature, example, metrics, fingerprints as tags.

    The version is an output of the run of the student's training, which is sent, under the run ``parent`` if given,
    where it is missing.

    Raises:
        StaleInputError: the directory holds no finished student.
        ModelError: its files differ from those its manifest describes.
        StudentError: its files do not load.
        ConfigError: the tracking server does not answer.
    """
    manifest = read_manifest(directory, "train")
    if fingerprint(directory) != manifest.fingerprint:
        raise ModelError(f"{directory} was changed after it was written: run `dllm2rec train` again")
    registry = Registry(tracker)
    with _served(directory) as model:
        run_id = tracker.send(student_run(directory, parent))
        made = registry.register(run_id, name, model, student_tags(manifest))
    name_challenger(registry, name)
    return made


def pull_student(registry: Registry, model: ModelVersion, folder: Path) -> Path:
    """Fetch a registered student's directory into ``folder``.

    Raises:
        ModelError: its files are gone, or it is no student.
        ConfigError: the tracking server does not answer.
    """
    path: Path = registry.pull(model, folder, SIGNATURE) / "artifacts" / STUDENT_ARTIFACT
    for file in (MODEL_FILE, ITEMS_FILE):
        if not (path / file).is_file():
            raise ModelError(f"{model} is missing the file {file}: register the student again")
    return path


def pull_file(registry: Registry, model: ModelVersion, file: str, folder: Path) -> Path:
    """Fetch one file of a registered student's directory into ``folder``.

    Raises:
        ModelError: the version does not hold it.
        ConfigError: the tracking server does not answer.
    """
    return registry.pull_file(model, f"artifacts/{STUDENT_ARTIFACT}/{file}", folder)


def student_tags(manifest: Manifest) -> dict[str, str]:
    """The tags of a version: fingerprints of the student and of what it was made from, and its metrics."""
    made_from = {f"fingerprint.{name}": value for name, value in manifest.inputs.items()}
    return made_from | {"fingerprint.student": manifest.fingerprint} | {k: repr(v) for k, v in manifest.metrics.items()}


@contextmanager
def _served(directory: Path) -> Iterator[ServedModel]:
    """The model to store: of the student all but torch's weights, of this project what answers."""
    example = pd.DataFrame({"history": [Recommender(directory).titles[:2]]})
    with tempfile.TemporaryDirectory(prefix="dllm2rec-register-") as folder:
        student, code = Path(folder) / STUDENT_ARTIFACT, Path(folder) / SCRIPT.parent.name
        shutil.copytree(directory, student, ignore=shutil.ignore_patterns(STUDENT_WEIGHTS_FILE))
        shutil.copytree(SCRIPT.parent, code, ignore=shutil.ignore_patterns("__pycache__"))
        yield ServedModel(
            script=SCRIPT,
            artifacts={STUDENT_ARTIFACT: student},
            code=[code],
            requirements=[f"{package}=={version(package).split('+')[0]}" for package in SERVING_PACKAGES],
            example=example,
            signature=SIGNATURE,
            params=DEFAULT_PARAMS,
        )
