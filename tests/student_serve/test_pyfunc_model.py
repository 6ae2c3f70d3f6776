"""The registered student where nothing of this project is installed: in a bare environment, and over HTTP."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from cluster.config import TrackingConfig
from cluster.tracking import Tracker
from model_registry.register import register_student
from model_registry.versions import Registry
from student_serve.recommender import Recommender
from tests.mlflow_server import Listening

pytestmark = pytest.mark.engine

HISTORIES = [["i1", "Title 2"], [], ["i3", "no item"]]
STRANGER = """
import importlib.util, json, sys
import cluster, mlflow, pandas as pd

model = mlflow.pyfunc.load_model(sys.argv[1])
answer = model.predict(pd.DataFrame({"history": json.loads(sys.argv[2])}), params={"k": 3})
others = ("torch", "ray", "sqlalchemy", "tyro", "student_train")
absent = [name for name in others if not importlib.util.find_spec(name)]
import serving
print(json.dumps([answer.to_dict("list"), cluster.mine, serving.mine, absent]))
"""
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    """MLflow puts the model's code before this project's for good; a Ray that starts later would find it first."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(scope="module")
def student(make_module_student) -> Path:
    return make_module_student()


@pytest.fixture(scope="module")
def tracking(student, new_store) -> TrackingConfig:
    """A store whose champion is the student."""
    tracking = new_store()
    tracker = Tracker(tracking)
    Registry(tracker).set_alias(register_student(tracker, student, "my-student"), "champion")
    return tracking


@pytest.fixture(scope="module")
def pulled(tracking, tmp_path_factory) -> Path:
    """The model's directory as it comes out of the registry."""
    registry = Registry(Tracker(tracking))
    return registry.fetch(registry.version("my-student"), tmp_path_factory.mktemp("pulled")).parents[1]


@pytest.fixture(scope="module")
def expected(student) -> dict:
    return Recommender(student).recommend(HISTORIES, k=3).to_pydict()


def test_a_program_with_its_requirements_alone_and_own_packages_serving_and_cluster_loads_it(
    pulled, expected, tmp_path
):
    uv = Path(sys.executable).with_name("uv")
    python = tmp_path / "venv" / "bin" / "python"
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True, env=bare)
    requirements = pulled / "requirements.txt"
    assert {line.split("==")[0] for line in requirements.read_text().splitlines()} == {
        *("mlflow-skinny", "numpy", "onnxruntime", "pandas", "pyarrow")
    }
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "-r", requirements], check=True, env=bare)
    for name in ("cluster", "serving"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True")
    question = [python, "-c", STRANGER, str(pulled), json.dumps(HISTORIES)]
    asked = subprocess.run(question, cwd=tmp_path, capture_output=True, text=True, check=False, env=bare)
    assert asked.returncode == 0, asked.stderr
    answer, *own, absent = json.loads(asked.stdout.splitlines()[-1])
    assert answer.pop("scores") == [pytest.approx(row) for row in expected["scores"]]
    assert answer == {name: values for name, values in expected.items() if name != "scores"}
    assert own == [True, True]
    assert absent == ["torch", "ray", "sqlalchemy", "tyro", "student_train"]


def test_the_model_holds_what_answers_and_nothing_else(pulled):
    code = {str(file.relative_to(pulled / "code")) for file in (pulled / "code").rglob("*.py")}
    names = ("__init__", "errors", "recommender", "pyfunc_model", "titles")
    assert code == {f"student_serve/{name}.py" for name in names}
    assert "model.safetensors" not in {file.name for file in pulled.rglob("*")}


def test_the_line_of_the_readme_serves_the_champion(tracking, expected):
    line = re.search(r"^mlflow models serve .*", README.read_text(), flags=re.MULTILINE)[0]
    assert "models:/my-student@champion" in line
    store = Path(tracking.uri.removeprefix("sqlite:///")).parent
    with Listening(line, store, "/ping") as serving:
        answer = post(serving.address, {"dataframe_split": {"columns": ["history"], "data": [[h] for h in HISTORIES]}})
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(serving.address, {"dataframe_split": {"columns": ["titles"], "data": [[["i1"]]]}})
    assert refused.value.code == 400
    rows = answer["predictions"]
    assert [row["titles"] for row in rows] == expected["titles"]
    assert [row["skipped"] for row in rows] == expected["skipped"]


def test_params_default_to_ten_items_without_the_history(pulled):
    model = mlflow.pyfunc.load_model(str(pulled))
    answer = model.predict(pd.DataFrame({"history": [["i1"]]}))
    assert len(answer["item_ids"][0]) == 10
    assert "i1" not in answer["item_ids"][0]
    everything = model.predict(pd.DataFrame({"history": [["i1"]]}), params={"k": 20, "exclude_history": False})
    assert "i1" in everything["item_ids"][0]


def test_a_wrong_column_and_an_item_that_is_no_text_are_named(pulled):
    model = mlflow.pyfunc.load_model(str(pulled))
    with pytest.raises(mlflow.MlflowException, match="history"):
        model.predict(pd.DataFrame({"titles": [["i1"]]}))
    with pytest.raises(mlflow.MlflowException, match="history"):
        model.predict(pd.DataFrame({"history": [[1]]}))


def post(address: str, frame: dict) -> dict:
    body = json.dumps(frame | {"params": {"k": 3}}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)
