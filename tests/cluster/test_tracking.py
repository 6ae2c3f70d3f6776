"""Runs in real MLflow stores: sent in parts, again, to a server that is away, and with its words coming back."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from cluster import tracking as module
from cluster.config import TrackingConfig
from cluster.errors import ConfigError
from cluster.run_record import RunRecord
from cluster.tracking import ServerAway, Tracker, absolute_uri
from model_registry.versions import Registry
from tests.mlflow_server import Listening, free_port

RUN = RunRecord("key", "a run", params={"width": 8}, tags={"fingerprint.dataset": "abc"})
CURVE = [(0, {"ndcg@20": 0.1, "loss": 3.0}), (1, {"ndcg@20": 0.3, "loss": 2.0}), (2, {"ndcg@20": 0.2, "loss": 1.0})]
COMPLETE = replace(RUN, curve=CURVE, metrics={"test": 0.5}, status="FINISHED", result="r", started=100, ended=102.5)


@pytest.fixture
def tracking(new_store: Callable[[], TrackingConfig]) -> TrackingConfig:
    return new_store()


def stored(tracking: TrackingConfig) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(Tracker(tracking).uri)
    return client.search_runs([client.get_experiment_by_name(tracking.experiment).experiment_id])


def points(tracking: TrackingConfig, run_id: str, name: str) -> list[tuple[int, float]]:
    history = mlflow.MlflowClient(Tracker(tracking).uri).get_metric_history(run_id, name)
    return sorted((point.step, point.value) for point in history)


def test_relative_sqlite_paths_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"
    assert absolute_uri(f"sqlite:///{tmp_path}/runs.db") == f"sqlite:///{tmp_path}/runs.db"
    assert absolute_uri("http://host:5000") == "http://host:5000"


def test_the_default_store_is_that_of_the_command_mlflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert Tracker(TrackingConfig()).uri == absolute_uri(mlflow.store.tracking.DEFAULT_TRACKING_URI)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert Tracker(TrackingConfig()).uri == "http://host:5000"


@pytest.mark.engine
def test_a_run_holds_params_metrics_per_step_tags_and_artifacts(tracking: TrackingConfig, tmp_path: Path) -> None:
    (folder := tmp_path / "pictures").mkdir()
    (folder / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    params = {f"p{at}": at for at in range(250)} | {"long": "x" * 7000}
    run_id = Tracker(tracking).send(replace(COMPLETE, params=params, artifacts=[folder, tmp_path / "b.txt"]))
    (run,) = stored(tracking)
    assert (run.info.run_id, run.info.run_name, run.info.status) == (run_id, "a run", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (100_000, 102_500)
    assert len(run.data.params) == 251
    assert run.data.metrics["test"] == 0.5
    assert points(tracking, run_id, "ndcg_at_20") == [(0, 0.1), (1, 0.3), (2, 0.2)]
    assert run.data.tags["fingerprint.dataset"] == "abc"
    assert run.data.tags["version.mlflow"] == mlflow.__version__
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    files = mlflow.MlflowClient(tracking.uri).list_artifacts(run_id)
    assert {file.path for file in files} == {"pictures", "b.txt"}
    beside = Path(tracking.uri.removeprefix("sqlite:///")).parent / "mlartifacts" / run_id
    assert [path.read_text() for path in beside.rglob("b.txt")] == ["b"]


@pytest.mark.engine
def test_what_was_sent_in_parts_and_again_is_there_once(tracking: TrackingConfig) -> None:
    child = RunRecord("child", "a child", parent=RUN, metrics={"test": 0.5}, status="FINISHED", result="c")
    with Tracker(tracking) as tracker, tracker.running(RUN):
        for point in CURVE[:2]:
            tracker.send_soon(replace(RUN, curve=[point]))
        tracker.send_soon(child)
    assert {run.info.run_name: run.info.status for run in stored(tracking)} == {
        "a run": "RUNNING",
        "a child": "FINISHED",
    }
    for records in ([RUN, child, replace(RUN, curve=CURVE[:1]), COMPLETE, RUN], [child, COMPLETE], [COMPLETE, child]):
        with Tracker(tracking) as tracker:
            for record in records:
                tracker.send_soon(record)
    (parent,) = [run for run in stored(tracking) if run.info.run_name == "a run"]
    (under,) = [run for run in stored(tracking) if run.info.run_name == "a child"]
    assert under.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.info.status == "FINISHED"
    assert points(tracking, parent.info.run_id, "loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert points(tracking, parent.info.run_id, "test") == [(0, 0.5)]


@pytest.mark.engine
def test_the_same_job_with_another_result_is_another_run(tracking: TrackingConfig) -> None:
    first, second = (Tracker(tracking).send(replace(COMPLETE, result=result)) for result in ("one", "two"))
    assert first != second
    assert Tracker(tracking).send(replace(COMPLETE, result="one")) == first
    begun = Tracker(tracking).send(RUN)
    assert begun not in (first, second)
    assert Tracker(tracking).send(replace(COMPLETE, result="three")) == begun


@pytest.mark.engine
def test_a_run_without_a_result_changes_with_its_record(tracking: TrackingConfig) -> None:
    for best in (0.3, 0.4):
        Tracker(tracking).send(replace(RUN, params={"trials": best}, metrics={"best": best}, status="FINISHED"))
    (run,) = stored(tracking)
    assert run.data.metrics == {"best": 0.4}
    assert run.data.params == {"trials": "0.3"}  # MLflow keeps a parameter as it was first


@pytest.mark.engine
def test_runs_end_with_their_state(tracking: TrackingConfig) -> None:
    for error, state in ((ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        with pytest.raises(error), Tracker(tracking) as tracker, tracker.running(RUN):
            raise error
        assert [run.info.status for run in stored(tracking)] == [state]
    Tracker(tracking).send(RUN)
    assert [run.info.status for run in stored(tracking)] == ["RUNNING"]


@pytest.mark.engine
def test_a_deleted_experiment_is_named(tracking: TrackingConfig) -> None:
    client = mlflow.MlflowClient(tracking.uri)
    client.delete_experiment(client.create_experiment("gone"))
    with (
        pytest.raises(ConfigError, match="gone was deleted: choose another"),
        Tracker(TrackingConfig(uri=tracking.uri, experiment="gone")),
    ):
        pass


@pytest.mark.engine
def test_unusable_stores_are_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, and long enough to be read as a header of one " * 4)
    for uri, reason in {
        "foo://x": "unsupported URI .*Supported URI schemes are: .*See https://www.mlflow.org",
        f"sqlite:///{text}": "file is not a database",
        f"sqlite:///{tmp_path}": "unable to open database file",
        str(tmp_path / "plain"): "maintenance mode",
    }.items():
        with pytest.raises(ConfigError, match=reason) as caught, Tracker(TrackingConfig(uri=uri)):
            pass
        assert uri in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.engine
def test_an_outdated_database_comes_with_its_upgrade_command(tracking: TrackingConfig) -> None:
    with sqlite3.connect(tracking.uri.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'c48cb773bb87'")
    # MLflow remembers the databases it has opened by their address.
    moved = shutil.copy(tracking.uri.removeprefix("sqlite:///"), f"{tracking.uri.removeprefix('sqlite:///')}.old")
    message = r"out-of-date database schema \(found version c48cb773bb87.*'mlflow db upgrade <database_uri>' to migrate"
    with pytest.raises(ConfigError, match=message):
        Tracker(TrackingConfig(uri=f"sqlite:///{moved}")).send(RUN)


@pytest.fixture
def away() -> TrackingConfig:
    """Where no server answers."""
    return TrackingConfig(uri=f"http://me:secret@127.0.0.1:{free_port()}")


def test_a_server_that_is_away_stops_nothing_and_is_warned_of_once(
    away: TrackingConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Tracker(away, tmp_path) as tracker, tracker.running(RUN):
        tracker.send_soon(COMPLETE)
    (line,) = capsys.readouterr().err.splitlines()
    assert "no server answers there ([Errno 111] Connection refused): the work continues" in line
    assert f"`dllm2rec track {tmp_path}` sends later what is missing" in line
    assert "secret" not in line


def test_what_needs_the_server_says_in_one_line_that_none_answers(away: TrackingConfig) -> None:
    for ask in (lambda: Registry(Tracker(away)).versions("any"), lambda: Tracker(away).send(RUN)):
        with pytest.raises(ServerAway, match="no server answers there") as caught:
            ask()
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.engine
def test_a_server_that_refuses_a_name_says_how_to_allow_it(server: Listening) -> None:
    address = server.address.replace("127.0.0.1", "me:secret@localhost")
    with pytest.raises(ConfigError, match=r"403 .*Invalid Host header.*--allowed-hosts") as caught:
        Tracker(TrackingConfig(uri=address)).send(RUN)
    assert "secret" not in str(caught.value)


@pytest.mark.engine
def test_a_server_killed_and_started_again_has_everything_once(
    server: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = TrackingConfig(uri=server.address, experiment="killed")
    (tmp_path / "picture.png").write_text("picture")
    child = replace(COMPLETE, key="child", name="a child", parent=RUN, artifacts=[tmp_path / "picture.png"])
    with Tracker(tracking, tmp_path) as tracker, tracker.running(RUN):
        tracker.send(replace(RUN, curve=CURVE[:1]))
        server.__exit__()
        with pytest.raises(ServerAway):
            tracker.send(replace(RUN, curve=CURVE[1:2]))
        for record in (replace(RUN, curve=CURVE[1:2]), child):
            tracker.send_soon(record)
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
        tracker.send_soon(replace(RUN, curve=CURVE[2:]))
        server.__enter__()
        tracker.send_soon(COMPLETE)
    assert len(capsys.readouterr().err.splitlines()) == 1
    runs = {run.info.run_name: run for run in stored(tracking)}
    assert len(stored(tracking)) == 2
    for run in runs.values():
        assert run.info.status == "FINISHED"
        assert points(tracking, run.info.run_id, "loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert runs["a child"].data.tags["mlflow.parentRunId"] == runs["a run"].info.run_id
    (file,) = mlflow.MlflowClient(server.address).list_artifacts(runs["a child"].info.run_id)
    assert file.path == "picture.png"
