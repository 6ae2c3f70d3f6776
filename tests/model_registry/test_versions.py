"""The registry of students in real MLflow stores: versions, aliases, and what is missing or foreign."""

import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature

from cluster.errors import ConfigError, ModelError
from cluster.run_record import RunRecord
from cluster.tracking import Tracker
from model_registry.versions import ModelVersion, Registry
from tests.conftest import MakeStudent

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def tracker(new_store) -> Tracker:
    return Tracker(new_store())


@pytest.fixture(scope="module")
def student(make_module_student: MakeStudent) -> Path:
    return make_module_student()


def add(tracker: Tracker, student: Path, name: str, **tags: str) -> ModelVersion:
    return Registry(tracker).add(name, student, RunRecord(f"make {name}", f"make {name}"), tags)


def test_versions_count_up_carry_tags_and_know_their_run(tracker: Tracker, student: Path) -> None:
    first, second = (add(tracker, student, "counted", **{"ndcg@20": figure}) for figure in ("0.1", "0.2"))
    assert (first.version, second.version) == (1, 2)
    assert Registry(tracker).version("counted", 1).tags == {"ndcg_at_20": "0.1"}
    assert Registry(tracker).version("counted") == second
    stored = mlflow.MlflowClient(tracker.uri).get_model_version("counted", "1")
    assert stored.run_id == tracker.send(RunRecord("make counted", "make counted"))


def test_a_fetched_student_holds_all_but_torchs_weights(tracker: Tracker, student: Path, tmp_path: Path) -> None:
    fetched = Registry(tracker).fetch(add(tracker, student, "whole"), tmp_path)
    files = {file.name: file.read_bytes() for file in student.iterdir() if file.name != "model.safetensors"}
    assert {file.name: file.read_bytes() for file in fetched.iterdir()} == files


def test_an_alias_has_one_holder(tracker: Tracker, student: Path) -> None:
    registry = Registry(tracker)
    first, second = add(tracker, student, "aliased"), add(tracker, student, "aliased")
    assert registry.with_alias("aliased", "champion") is None
    for version in (first, second):
        registry.set_alias(version, "champion")
        assert registry.with_alias("aliased", "champion") == version
        assert registry.resolve("models:/aliased@champion") == version
    assert registry.resolve("models:/aliased/1") == first


def test_unknown_names_versions_aliases_and_addresses_are_named(tracker: Tracker, student: Path) -> None:
    add(tracker, student, "known")
    for uri, message in {
        "models:/nobody@champion": "no model `nobody` is registered",
        "models:/known@champion": "no version of `known` is `champion`: run `dllm2rec promote`",
        "models:/known/7": "`known` has no version 7: it has 1",
        "models:/known": "names no model: write models:/NAME@champion",
        "models:/known/0": "names no model",
    }.items():
        with pytest.raises(ModelError, match=message):
            Registry(tracker).resolve(uri)


def test_a_name_that_mlflow_refuses_is_a_config_error(tracker: Tracker, student: Path) -> None:
    with pytest.raises(ConfigError, match="a/b"):
        add(tracker, student, "a/b")


def test_a_model_of_another_kind_is_refused(tracker: Tracker, tmp_path: Path) -> None:
    with tracker.client(), mlflow.start_run(run_id=tracker.send(RunRecord("other", "other"))):
        mlflow.pyfunc.log_model(
            name="other",
            python_model=lambda model_input: model_input,
            signature=infer_signature(pd.DataFrame({"column": ["x"]})),
            pip_requirements=["pandas"],
            registered_model_name="other",
        )
    with pytest.raises(ModelError, match="`other` version 1 is another kind of model: its signature differs"):
        Registry(tracker).fetch(Registry(tracker).version("other"), tmp_path)


def test_lost_artifacts_are_a_model_error(new_store, student: Path, tmp_path: Path) -> None:
    tracker = Tracker(new_store())
    version = add(tracker, student, "lost")
    shutil.rmtree(Path(tracker.uri.removeprefix("sqlite:///")).parent / "mlartifacts")
    with pytest.raises(ModelError, match="`lost` version 1 holds no "):
        Registry(tracker).fetch(version, tmp_path)


def test_stored_models_name_no_package_index(tracker: Tracker, student: Path, tmp_path: Path) -> None:
    model = Registry(tracker).fetch(add(tracker, student, "plain"), tmp_path).parents[1]
    texts = [p.read_text() for p in model.rglob("*") if p.suffix in (".txt", ".yaml", "") and p.is_file()]
    assert len(texts) >= 3
    assert not [text for text in texts if "index-url" in text or "find-links" in text]
