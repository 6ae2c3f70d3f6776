import json

import mlflow
import pytest

from cluster.errors import ModelError, StaleInputError
from cluster.run_record import RunRecord
from cluster.storage import fingerprint, read_manifest
from cluster.tracking import Tracker
from dllm2rec import main
from model_registry.register import register_student
from model_registry.versions import Registry

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def tracker(new_store):
    return Tracker(new_store())


def test_a_version_carries_metrics_and_fingerprints(tracker, make_student):
    directory = make_student(ndcg=0.125, dataset="data")
    parent = RunRecord("search", "a search")
    version = register_student(tracker, directory, "tagged", parent)
    assert version == Registry(tracker).resolve("models:/tagged/1")
    assert version.tags == {
        "fingerprint.dataset": "data",
        "fingerprint.student": fingerprint(directory),
        "validation_ndcg_at_20": "0.125",
        "test_hr_at_20": "0.25",
    }
    client = mlflow.MlflowClient(tracker.uri)
    run = client.get_run(client.get_model_version("tagged", "1").run_id)
    assert run.data.tags["mlflow.parentRunId"] == tracker.send(parent)
    assert run.data.metrics["best_validation_ndcg_at_20"] == 0.125
    assert client.get_metric_history(run.info.run_id, "loss")[0].value == 2.5
    assert run.data.params["model.hidden_size"] == "8"


def test_a_model_has_a_signature_with_params_and_an_example(tracker, make_student):
    register_student(tracker, make_student(), "signed")
    info = mlflow.models.get_model_info("models:/signed/1")
    assert info.signature.inputs.input_names() == ["history"]
    assert info.signature.outputs.input_names() == ["item_ids", "titles", "scores", "skipped"]
    assert {p.name: p.default for p in info.signature.params} == {"k": 10, "exclude_history": True}
    assert info.saved_input_example_info is not None


def test_the_verb_writes_down_which_version_a_student_became(tracker, make_student, tmp_path, capsys):
    directory = make_student()
    asked = ["--student", str(directory), "--name", "by-hand", "--output", str(tmp_path / "done")]
    main(["register", *asked, "--tracking.uri", tracker.uri])
    assert capsys.readouterr().out.splitlines()[-1] == "registered as by-hand version 1"
    assert json.loads((tmp_path / "done" / "version.json").read_text()) == {"name": "by-hand", "version": 1}
    assert read_manifest(tmp_path / "done", "register").inputs == {"student": fingerprint(directory)}
    assert Registry(tracker).resolve("models:/by-hand@challenger").version == 1


def test_a_directory_changed_by_hand_is_refused(tracker, make_student):
    directory = make_student()
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="was changed after it was written"):
        register_student(tracker, directory, "changed")


def test_something_else_than_a_student_is_refused(tracker, tmp_path):
    with pytest.raises(StaleInputError, match="run `dllm2rec train"):
        register_student(tracker, tmp_path, "nothing")
