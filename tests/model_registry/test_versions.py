import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature

from cluster.errors import ConfigError, ModelError
from cluster.run_record import RunRecord
from cluster.tracking import Tracker
from model_registry.versions import Registry, ServedModel

pytestmark = pytest.mark.engine

SCRIPT = """
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Repeat(PythonModel):
    def load_context(self, context):
        with open(context.artifacts["word"]) as file:
            self.word = file.read()

    def predict(self, context, model_input, params=None):
        return pd.DataFrame({"text": [self.word * params["times"] for _ in model_input["row"]]})


set_model(Repeat())
"""


SIGNATURE = infer_signature(pd.DataFrame({"row": [1]}), pd.DataFrame({"text": ["ab"]}), {"times": 1})


@pytest.fixture(scope="module")
def tracker(new_store):
    return Tracker(new_store())


@pytest.fixture
def served(tmp_path) -> ServedModel:
    (tmp_path / "word.txt").write_text("ab")
    (tmp_path / "repeat.py").write_text(SCRIPT)
    return ServedModel(
        script=tmp_path / "repeat.py",
        artifacts={"word": tmp_path / "word.txt"},
        code=[],
        requirements=["pandas"],
        example=pd.DataFrame({"row": [1]}),
        signature=SIGNATURE,
        params={"times": 1},
    )


def register(tracker: Tracker, served: ServedModel, name: str, **tags: str):
    run_id = tracker.send(RunRecord(f"make {name}", f"make {name}"))
    return Registry(tracker).register(run_id, name, served, tags)


def test_versions_count_up_carry_tags_and_know_their_run(tracker, served):
    run_id = tracker.send(RunRecord("make first", "make first"))
    first = Registry(tracker).register(run_id, "counted", served, {"validation_ndcg@20": "0.1"})
    second = register(tracker, served, "counted")
    assert (first.version, second.version) == (1, 2)
    found = Registry(tracker).version("counted", 1)
    assert found.tags == {"validation_ndcg_at_20": "0.1"}
    assert Registry(tracker).version("counted").version == 2
    stored = mlflow.MlflowClient(tracker.uri).get_model_version("counted", "1")
    assert stored.run_id == run_id


def test_a_pulled_model_answers_with_params(tracker, served, tmp_path):
    version = register(tracker, served, "repeat")
    model = mlflow.pyfunc.load_model(str(Registry(tracker).pull(version, tmp_path / "pulled", SIGNATURE)))
    assert model.predict(pd.DataFrame({"row": [1, 2]}), params={"times": 2})["text"].tolist() == ["abab", "abab"]
    assert model.predict(pd.DataFrame({"row": [1]}))["text"].tolist() == ["ab"]


def test_aliases_move(tracker, served):
    registry = Registry(tracker)
    first, second = register(tracker, served, "aliased"), register(tracker, served, "aliased")
    assert registry.with_alias("aliased", "champion") is None
    for version in (first, second):
        registry.set_alias(version, "champion")
        assert registry.with_alias("aliased", "champion") == version
        assert registry.resolve("models:/aliased@champion") == version
    assert registry.resolve("models:/aliased/1") == first


def test_unknown_names_versions_aliases_and_addresses_are_named(tracker, served):
    register(tracker, served, "known")
    registry = Registry(tracker)
    for uri, message in {
        "models:/nobody@champion": "no model `nobody` is registered",
        "models:/known@champion": "no version of `known` is `champion`: run `dllm2rec promote`",
        "models:/known/7": "`known` has no version 7: it has 1",
        "models:/known": "names no model: write models:/NAME@champion",
        "models:/known/0": "names no model",
    }.items():
        with pytest.raises(ModelError, match=message):
            registry.resolve(uri)


def test_a_name_that_mlflow_refuses_is_a_config_error(tracker, served):
    with pytest.raises(ConfigError, match="a/b"):
        register(tracker, served, "a/b")


def test_a_model_of_another_kind_is_refused(tracker, served, tmp_path):
    version = register(tracker, served, "other")
    other = infer_signature(pd.DataFrame({"column": ["x"]}))
    with pytest.raises(ModelError, match="`other` version 1 is another kind of model: its signature differs"):
        Registry(tracker).pull(version, tmp_path / "pulled", other)


def test_lost_artifacts_are_a_model_error(new_store, served, tmp_path):
    tracker = Tracker(new_store())
    version = register(tracker, served, "lost")
    shutil.rmtree(Path(tracker.uri.removeprefix("sqlite:///")).parent / "mlartifacts")
    with pytest.raises(ModelError, match="`lost` version 1 holds no "):
        Registry(tracker).pull(version, tmp_path / "pulled", SIGNATURE)


def test_stored_models_name_no_package_index(tracker, served, tmp_path):
    version = register(tracker, served, "plain")
    stored = Path(
        mlflow.artifacts.download_artifacts(f"models:/plain/{version.version}", dst_path=str(tmp_path / "pulled"))
    )
    texts = [p.read_text() for p in stored.rglob("*") if p.suffix in (".txt", ".yaml", "") and p.is_file()]
    assert len(texts) >= 3
    assert not [text for text in texts if "index-url" in text or "find-links" in text]
