import json
import time
from pathlib import Path

import mlflow
import pytest

from cluster import tracking as module
from cluster.config import TrackingConfig
from cluster.errors import ConfigError
from cluster.journal import Journal
from cluster.mlflow_client import ServerAway
from cluster.tracking import Tracker, absolute_uri
from model_registry.versions import Registry
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
        "foo://x": "unsupported URI",
        f"sqlite:///{text}": "file is not a database",
        f"sqlite:///{tmp_path}": "unable to open database file",
        str(tmp_path / "plain"): "maintenance mode",
    }.items():
        with pytest.raises(ConfigError, match=reason) as caught:
            Tracker(TrackingConfig(uri=uri))
        assert uri in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.fixture
def away(tmp_path) -> TrackingConfig:
    """Where no server answers; every call tries to reach it."""
    return TrackingConfig(uri=f"http://127.0.0.1:{free_port()}", journal=tmp_path / "journal")


def test_what_a_server_misses_is_kept_without_stopping_anything(away, capsys):
    tracker = Tracker(away)
    with tracker.run("kept") as run:
        run.log_metrics({"ndcg@20": 0.5}, step=3)
    (file,) = away.journal.glob("*.jsonl")
    calls = [json.loads(line) for line in file.read_text().splitlines() if line]
    assert [call["call"] for call in calls] == ["create", "batch", "finish"]
    assert {call["run"] for call in calls} == {run.id}
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1
    assert f"no server answers there: kept in {file}" in printed[0]


def test_the_registry_says_in_one_line_that_no_server_answers(away):
    with pytest.raises(ServerAway, match="no server answers there") as caught:
        Registry(Tracker(away)).versions("any")
    assert "\n" not in str(caught.value)


@pytest.mark.engine
def test_what_is_sent_twice_is_there_once_and_what_is_refused_is_left_out(new_store, tmp_path, capsys):
    config = new_store().model_copy(update={"journal": tmp_path / "journal"})
    (journal := tmp_path / "calls").mkdir()
    (tmp_path / "picture.png").write_text("picture")
    away = Tracker(TrackingConfig(uri=f"http://127.0.0.1:{free_port()}", journal=journal))
    with away.run("parent") as parent, away.run("child", parent=parent.id) as child:
        child.log_metrics({"loss": 2.0, "ndcg@20": 0.5}, step=7)
        child.log_params({"width": 8})
        child.log_artifacts([tmp_path / "picture.png", tmp_path / "removed.png"])
    (kept,) = journal.glob("*.jsonl")
    waiting = Journal(config.journal, f"{config.uri} {config.experiment}")
    for _ in range(2):
        waiting.file.parent.mkdir(exist_ok=True)
        waiting.file.write_text(kept.read_text())
        tracker = Tracker(config)
        assert not waiting.file.exists()
        assert "removed.png" in capsys.readouterr().err
        client = mlflow.MlflowClient(tracker.uri)
        runs = client.search_runs([client.get_experiment_by_name(config.experiment).experiment_id])
        assert sorted(run.info.run_name for run in runs) == ["child", "parent"]
        sent = next(run for run in runs if run.info.run_name == "child")
        assert sent.data.tags["mlflow.parentRunId"] == next(r for r in runs if r is not sent).info.run_id
        assert sent.data.params == {"width": "8"}
        assert [(m.step, m.value) for m in client.get_metric_history(sent.info.run_id, "loss")] == [(7, 2.0)]
        assert [file.path for file in client.list_artifacts(sent.info.run_id)] == ["picture.png"]
        assert sent.info.end_time < time.time() * 1000


@pytest.mark.engine
def test_a_server_killed_and_started_again_has_everything_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    port = free_port()
    config = TrackingConfig(uri=f"http://127.0.0.1:{port}", journal=tmp_path / "journal")
    with mlflow_server(tmp_path, port):
        tracker = Tracker(config)
        run = tracker.open_run("interrupted")
        run.log_metrics({"loss": 3.0}, step=0)
    run.log_metrics({"loss": 2.0}, step=1)
    run.log_params({"width": 8})
    with tracker.run("child", parent=run.id) as child:
        child.log_metrics({"loss": 1.5}, step=1)
    with Tracker(config).run("made while away", parent=child.id):
        pass
    restarted = int(time.time() * 1000)
    (kept,) = config.journal.glob("*.jsonl")
    copy = kept.read_text()
    with mlflow_server(tmp_path, port):
        run.log_metrics({"loss": 1.0}, step=2)
        run.finish()
        assert not kept.exists()
        check_all_is_there_once(tracker, run.id, child.id, restarted)
        kept.write_text(copy)
        Tracker(config)
        assert not kept.exists()
        check_all_is_there_once(tracker, run.id, child.id, restarted)


def check_all_is_there_once(tracker: Tracker, run_id: str, child_id: str, restarted: int) -> None:
    client = mlflow.MlflowClient(tracker.uri)
    runs = {run.info.run_name: run for run in client.search_runs([client.get_run(run_id).info.experiment_id])}
    assert len(runs) == len(client.search_runs([client.get_run(run_id).info.experiment_id])) == 3
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "loss")] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert runs["interrupted"].data.params == {"width": "8"}
    assert runs["child"].data.tags["mlflow.parentRunId"] == run_id
    assert runs["made while away"].data.tags["mlflow.parentRunId"] == child_id
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert max(run.info.start_time for run in runs.values()) < restarted


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
