from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from cluster.config import Config, TrackingConfig
from cluster.tracking import Tracker
from tests.mlflow_server import free_port
from tests.tune.records import record
from tune.journal import Journal
from tune.record_runs import RunRecorder, search_run


def recorded(tracker: Tracker, parent: str) -> dict[str, mlflow.entities.Run]:
    client = mlflow.MlflowClient(tracker.uri)
    experiment = client.get_run(parent).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path, {})
    made.append(record(0, 0.1, 0.3, measures={"size": 9.0}))
    made.append(record(1, reason="loss is nan"))
    made.append(record(2, 0.2, parent=0, state="stopped early"))
    return made


def test_after_a_kill_every_trial_gets_one_whole_run(journal: Journal, new_store: Callable[[], TrackingConfig]):
    tracker = Tracker(new_store())
    with search_run(tracker, journal, "search", Config(), {"dataset": "f"}) as parent:
        first = RunRecorder(tracker, parent.id, "ndcg@20")
        first.record(journal.records[0])
        first.finish()
        half = tracker.open_run("trial 1", parent=parent.id)
        half.set_tags({"trial": "1"})
        again = RunRecorder(tracker, parent.id, "ndcg@20")
        again.catch_up(journal)
        again.finish()
        runs = recorded(tracker, parent.id)
    assert {name: run.info.status for name, run in runs.items()} == {
        "trial 0": "FINISHED",
        "trial 1": "FAILED",
        "trial 2": "FINISHED",
    }
    assert runs["trial 0"].data.metrics["best_validation_ndcg_at_20"] == 0.3
    assert runs["trial 0"].data.metrics["size"] == 9
    assert runs["trial 0"].data.params == {"lam": "0.5", "seed": "0"}
    assert runs["trial 1"].data.tags["reason"] == "loss is nan"
    assert runs["trial 2"].data.tags["parent_trial"] == "0"


def test_a_search_whose_server_is_away_goes_on_and_is_recorded_where_it_is_unknown(
    journal: Journal, new_store: Callable[[], TrackingConfig], tmp_path: Path
):
    away = TrackingConfig(uri=f"http://127.0.0.1:{free_port()}", journal=tmp_path / "kept")
    for _ in range(2):
        tracker = Tracker(away)
        with search_run(tracker, journal, "search", Config(), {}) as run:
            recorder = RunRecorder(tracker, run.id, "ndcg@20")
            recorder.catch_up(journal)
            recorder.finish()
    elsewhere = Tracker(new_store())
    with search_run(elsewhere, journal, "search", Config(), {}) as run:
        recorder = RunRecorder(elsewhere, run.id, "ndcg@20")
        recorder.catch_up(journal)
        recorder.finish()
        assert set(recorded(elsewhere, run.id)) == {"trial 0", "trial 1", "trial 2"}
    again = Tracker(TrackingConfig(uri=elsewhere.uri))
    with search_run(again, journal, "search", Config(), {}) as same:
        assert same.id == run.id


def test_an_older_search_names_its_run_by_the_id(journal: Journal, new_store: Callable[[], TrackingConfig]):
    tracking = new_store()
    made = Tracker(tracking).open_run("search").id
    journal.set_run(made)
    with search_run(Tracker(tracking), journal, "search", Config(), {}) as run:
        assert run.id == made


def test_what_the_server_refuses_stops_no_search(
    journal: Journal, new_store: Callable[[], TrackingConfig], capsys: pytest.CaptureFixture[str]
):
    recorder = RunRecorder(Tracker(new_store()), "dllm2rec-unknown", "ndcg@20")
    recorder.record(journal.records[0])
    recorder.finish()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "dllm2rec: not recorded: the run dllm2rec-unknown was never made"


def test_a_search_that_goes_on_has_one_run(journal: Journal, new_store: Callable[[], TrackingConfig]):
    tracker = Tracker(new_store())
    with pytest.raises(ZeroDivisionError), search_run(tracker, journal, "search", Config(), {}) as run:
        raise ZeroDivisionError
    client = mlflow.MlflowClient(tracker.uri)
    assert client.get_run(run.id).info.status == "FAILED"
    with search_run(tracker, journal, "search", Config(), {}) as again:
        assert client.get_run(run.id).info.status == "RUNNING"
    assert again.id == run.id
    assert client.get_run(run.id).info.status == "FINISHED"
