import json
import subprocess
import sys

import mlflow
import pandas as pd
import pytest

from cluster.errors import ModelError
from cluster.registry import Registry
from cluster.tracking import Tracker
from student_train.recommender import Recommender
from student_train.register import register_student

pytestmark = pytest.mark.engine

# What a server without training engines, and without this project installed, does with the model.
STRANGER = """
import json, sys

FORBIDDEN = ("ray", "deepspeed", "vllm", "transformers")

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} must not be imported")

sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
sys.meta_path.insert(0, Blocker())
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/served/1")
answer = model.predict(pd.DataFrame({"history": [["i1", "Title 2"], []]}), params={"k": 3})
import cluster
print(json.dumps([answer.to_dict("list"), cluster.__file__, sorted(set(FORBIDDEN) & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def tracker(new_store):
    return Tracker(new_store())


@pytest.fixture
def model(tracker, make_student) -> mlflow.pyfunc.PyFuncModel:
    return Registry(tracker).load(register_student(tracker, make_student(), "here"))


def test_it_answers_in_a_process_without_engines_and_without_this_project(tmp_path, new_store, make_student):
    tracker = Tracker(new_store())
    directory = make_student()
    register_student(tracker, directory, "served")
    asked = subprocess.run(
        [sys.executable, "-c", STRANGER, tracker.uri], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    answer, home, engines = json.loads(asked.stdout.splitlines()[-1])
    expected = Recommender(directory).recommend([["i1", "Title 2"], []], k=3)
    assert answer["item_ids"] == expected["item_ids"].tolist()
    assert answer["titles"] == expected["titles"].tolist()
    assert answer["scores"] == [pytest.approx(row) for row in expected["scores"]]
    assert home.endswith("/code/cluster/__init__.py")
    assert engines == []


def test_params_default_to_ten_items_without_the_history(model):
    answer = model.predict(pd.DataFrame({"history": [["i1"]]}))
    assert len(answer["item_ids"][0]) == 10
    assert "i1" not in answer["item_ids"][0]
    everything = model.predict(pd.DataFrame({"history": [["i1"]]}), params={"k": 20, "exclude_history": False})
    assert "i1" in everything["item_ids"][0]


def test_a_wrong_column_and_an_unknown_item_are_named(model):
    with pytest.raises(mlflow.MlflowException, match="history"):
        model.predict(pd.DataFrame({"titles": [["i1"]]}))
    with pytest.raises(ModelError, match='"Titel 2" is neither an item id nor a title'):
        model.predict(pd.DataFrame({"history": [["Titel 2"]]}))
