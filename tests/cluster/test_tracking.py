from pathlib import Path

import mlflow
import pytest

from cluster.config import Config, TrackingConfig
from cluster.errors import ConfigError
from cluster.tracking import Tracker, absolute_uri, flatten, metric_name
from tests.mlflow_server import free_port, mlflow_server


@pytest.fixture(scope="module")
def tracker(new_store):
    return Tracker(new_store())


@pytest.fixture
def server(tmp_path):
    """The address of an MLflow server of its own."""
    with mlflow_server(tmp_path, free_port()) as address:
        yield address


def read(tracker: Tracker, run_id: str) -> mlflow.entities.Run:
    return mlflow.MlflowClient(tracker.uri).get_run(run_id)


def test_relative_sqlite_paths_are_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"
    assert absolute_uri(f"sqlite:///{tmp_path}/runs.db") == f"sqlite:///{tmp_path}/runs.db"
    assert absolute_uri("http://host:5000") == "http://host:5000"


def test_metric_names_carry_no_at_sign():
    assert metric_name("validation_ndcg@20") == "validation_ndcg_at_20"


class Settings(Config):
    name: str = "x"
    version: int | None = None
    tracking: TrackingConfig = TrackingConfig()


def test_nested_configs_flatten_to_dotted_names():
    flat = flatten(Settings(tracking=TrackingConfig(experiment="e")))
    assert flat["name"] == "x"
    assert flat["tracking.experiment"] == "e"
    assert flat["version"] == "None"
    assert flatten({"a": {}, "b": {"c": [1, 2]}}) == {"a": "{}", "b.c": "[1, 2]"}


@pytest.mark.engine
def test_a_run_holds_params_metrics_per_step_tags_and_artifacts(tracker, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    with tracker.run("one") as run:
        run.log_params({f"p{at}": at for at in range(250)} | {"long": "x" * 7000})
        for epoch, value in enumerate([0.1, 0.3, 0.2]):
            run.log_metrics({"ndcg@20": value}, step=epoch)
        run.set_tags({"fingerprint.dataset": "abc"})
        run.log_artifacts([folder, tmp_path / "b.txt"])
    stored = read(tracker, run.id)
    client = mlflow.MlflowClient(tracker.uri)
    history = client.get_metric_history(run.id, "ndcg_at_20")
    assert stored.info.status == "FINISHED"
    assert len(stored.data.params) == 251
    assert [(m.step, m.value) for m in history] == [(0, 0.1), (1, 0.3), (2, 0.2)]
    assert stored.data.tags["fingerprint.dataset"] == "abc"
    assert stored.data.tags["version.mlflow"] == mlflow.__version__
    assert {f.path for f in client.list_artifacts(run.id)} == {"pictures", "b.txt"}


@pytest.mark.engine
def test_artifacts_lie_beside_the_database(tracker, tmp_path):
    (tmp_path / "b.txt").write_text("b")
    with tracker.run("beside") as run:
        run.log_artifacts([tmp_path / "b.txt"])
    store = Path(tracker.uri.removeprefix("sqlite:///")).parent
    assert [p.read_text() for p in (store / "mlartifacts" / run.id).rglob("b.txt")] == ["b"]


@pytest.mark.engine
def test_runs_nest_and_end_with_their_state(tracker):
    with pytest.raises(ValueError, match="boom"), tracker.run("parent") as parent:
        with tracker.run("child", parent=parent.id) as child:
            pass
        raise ValueError("boom")
    assert read(tracker, child.id).data.tags["mlflow.parentRunId"] == parent.id
    assert read(tracker, child.id).info.status == "FINISHED"
    assert read(tracker, parent.id).info.status == "FAILED"
    with pytest.raises(KeyboardInterrupt), tracker.run("stopped") as stopped:
        raise KeyboardInterrupt
    assert read(tracker, stopped.id).info.status == "KILLED"


@pytest.mark.engine
def test_a_second_tracker_finds_the_same_experiment(tracker):
    again = Tracker(TrackingConfig(uri=tracker.uri))
    with tracker.run("first") as first, again.run("second") as second:
        pass
    assert read(tracker, first.id).info.experiment_id == read(tracker, second.id).info.experiment_id


@pytest.mark.engine
def test_a_deleted_experiment_is_named(tracker):
    client = mlflow.MlflowClient(tracker.uri)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(ConfigError, match="gone was deleted: choose another"):
        Tracker(TrackingConfig(uri=tracker.uri, experiment="gone"))


@pytest.mark.engine
def test_unusable_stores_are_one_line(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, and long enough to be read as a header of one " * 4)
    for uri, reason in {
        f"http://127.0.0.1:{free_port()}": "no server answers",
        "foo://x": "unsupported URI",
        f"sqlite:///{text}": "file is not a database",
        f"sqlite:///{tmp_path}": "unable to open database file",
        str(tmp_path / "plain"): "maintenance mode",
    }.items():
        with pytest.raises(ConfigError, match=reason) as caught:
            Tracker(TrackingConfig(uri=uri))
        assert uri in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.engine
def test_a_server_holds_runs_and_artifacts_like_a_file(server, tmp_path):
    tracker = Tracker(TrackingConfig(uri=server))
    (tmp_path / "b.txt").write_text("b")
    with tracker.run("remote") as run:
        run.log_metrics({"ndcg@20": 0.5}, step=3)
        run.log_artifacts([tmp_path / "b.txt"])
    stored = read(tracker, run.id)
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics == {"ndcg_at_20": 0.5}
    assert [p.read_text() for p in (tmp_path / "files").rglob("b.txt")] == ["b"]
