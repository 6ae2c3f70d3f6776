"""A student as MLflow stores it: what goes along, what it takes and answers, and what runs it."""

import contextlib
import io
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import pandas as pd

import student_serve
from cluster.files import local_copy
from cluster.tracking import mlflow
from data_prep.schema import STUDENT_WEIGHTS_FILE
from student_serve.recommender import STUDENT_ARTIFACT, Recommender

# isort: split
# cluster.tracking sets the environment that MLflow reads when it is imported.
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, ColSpec, DataType

PACKAGES = ("mlflow-skinny", "numpy", "onnxruntime", "pandas", "pyarrow")
PARAMS = {"k": 10, "exclude_history": True}
_ROOM = Path(student_serve.__file__).parent
_TEXTS, _NUMBERS = Array(DataType.string), Array(DataType.double)
_ANSWER = {"item_ids": _TEXTS, "titles": _TEXTS, "scores": _NUMBERS, "skipped": _TEXTS}
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(_TEXTS, "history")]),
    outputs=Schema([ColSpec(kind, name) for name, kind in _ANSWER.items()]),
    params=ParamSchema([ParamSpec("k", DataType.long, 10), ParamSpec("exclude_history", DataType.boolean, True)]),
)


def store(directory: Path, name: str, run_id: str) -> str:
    """Store a student as an output of a run: all of it but torch's weights, and the room that answers.

    Returns:
        The address of the model in MLflow.

    Raises:
        StudentError: the student's files do not load.
    """
    directory = local_copy(directory)
    example = pd.DataFrame({"history": [Recommender(directory).titles[:2]]})
    with tempfile.TemporaryDirectory(prefix="dllm2rec-register-") as folder:
        student, code = Path(folder) / STUDENT_ARTIFACT, Path(folder) / _ROOM.name
        shutil.copytree(directory, student, ignore=shutil.ignore_patterns(STUDENT_WEIGHTS_FILE))
        shutil.copytree(_ROOM, code, ignore=shutil.ignore_patterns("__pycache__"))
        with contextlib.redirect_stderr(io.StringIO()), mlflow.start_run(run_id=run_id):
            stored = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(_ROOM / "pyfunc_model.py"),
                artifacts={STUDENT_ARTIFACT: str(student)},
                code_paths=[str(code)],
                signature=SIGNATURE,
                input_example=(example, PARAMS),
                pip_requirements=[f"{package}=={version(package).split('+')[0]}" for package in PACKAGES],
            )
    return str(stored.model_uri)
