from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow

from cluster.config import TrackingConfig
from cluster.storage import Draft, write_manifest
from cluster.tracking import Tracker
from tests.tune.records import history, record
from tune.config import TuneConfig
from tune.journal import Journal
from tune.search_runs import parent_run, runs_of, trial_run


def test_every_trial_is_one_run_under_its_search_however_often_it_is_sent(
    tmp_path: Path, new_store: Callable[[], TrackingConfig]
) -> None:
    config = TuneConfig(output=tmp_path / "search", tracking=new_store())
    trials = [
        record(0, 0.1, 0.3, measures={"size": 9.0}),
        record(1, reason="loss is nan"),
        record(2, 0.2, parent=0, state="stopped early", histories={3: history(0.1), 4: history(0.3)}),
    ]
    with closing(Journal(config.output, "tune", {})) as journal:
        run = parent_run("tune", config.output, config, {"dataset": "f"}, journal.notes["id"])
        with Tracker(config.tracking) as tracker, tracker.running(run):
            for trial in trials[:2]:
                journal.append(trial)
                tracker.send_soon(trial_run(trial, run))
        journal.append(trials[2])
    draft = Draft(config.output, {"trials": 3}, {"search_validation_ndcg@20": 0.3})
    write_manifest(draft, verb="tune", config=config, inputs={"dataset": "f"})
    tracker = Tracker(config.tracking)
    for _ in range(2):
        for one in runs_of(config.output):
            tracker.send(one)
    client = mlflow.MlflowClient(tracker.uri)
    runs = {one.info.run_name: one for one in client.search_runs(["1"])}
    assert {name: one.info.status for name, one in runs.items()} == {
        "tune search": "FINISHED",
        "trial 0": "FINISHED",
        "trial 1": "FAILED",
        "trial 2": "FINISHED",
    }
    assert len(client.search_runs(["1"])) == 4
    assert runs["tune search"].data.metrics == {"search_validation_ndcg_at_20": 0.3}
    assert runs["trial 0"].data.metrics["best_validation_ndcg_at_20"] == 0.3
    assert runs["trial 0"].data.metrics["size"] == 9
    assert runs["trial 0"].data.params == {"lam": "0.5"}
    curve = client.get_metric_history(runs["trial 0"].info.run_id, "validation_ndcg_at_20")
    assert [(point.step, point.value) for point in curve] == [(1, 0.1), (2, 0.3)]
    assert runs["trial 1"].data.tags["reason"] == "loss is nan"
    assert (runs["trial 2"].data.tags["parent_trial"], runs["trial 2"].data.tags["state"]) == ("0", "stopped early")
    assert runs["trial 2"].data.metrics["validation_ndcg_at_20_seed_4"] == 0.3
