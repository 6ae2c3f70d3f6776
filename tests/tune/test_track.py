"""The verb ``track`` on student directories; tests of tune and compare track theirs."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from cluster.config import TrackingConfig
from cluster.errors import ConfigError, StaleInputError
from cluster.storage import output_directory, read_manifest
from cluster.tracking import Tracker
from dllm2rec import main
from model_registry.config import RollbackConfig
from student_train.student_run import student_run
from tests.conftest import MakeStudent
from tune.track import track
from tune.track_config import TrackConfig


@pytest.mark.engine
def test_students_are_runs_however_often_they_are_tracked(
    make_student: MakeStudent, new_store: Callable[[], TrackingConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = new_store()
    one, other = make_student("one", seed=1), make_student("other", seed=2, dataset="another")
    for _ in range(2):
        main(["track", str(one), str(other), str(one), "--tracking.uri", str(tracking.uri)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[2] == lines[3] == lines[5]
    assert lines[0].startswith(f"{one}: 1 run at {tracking.uri}, the first is ")
    client = mlflow.MlflowClient(Tracker(tracking).uri)
    runs = client.search_runs([client.get_experiment_by_name("dllm2rec").experiment_id])
    assert {run.data.tags["fingerprint.dataset"] for run in runs} == {"another", "fingerprint-of-data"}
    assert len(runs) == 2
    (run,) = [run for run in runs if run.info.run_id in lines[0]]
    assert run.data.metrics == {"best_validation_ndcg_at_20": 0.1, "test_hr_at_20": 0.25} | {
        "loss": 2.5,
        "validation_ndcg_at_20": 0.1,
    }
    assert run.info.end_time == int(read_manifest(one).created.timestamp() * 1000)
    assert run.info.status == "FINISHED"


@pytest.mark.engine
def test_another_student_of_the_same_settings_is_another_run(
    make_student: MakeStudent, new_store: Callable[[], TrackingConfig]
) -> None:
    one, changed = student_run(make_student("one", seed=1)), student_run(make_student("two", seed=2))
    assert one.key == changed.key
    tracker = Tracker(new_store())
    assert tracker.send(one) != tracker.send(changed)


def test_what_holds_no_runs_is_named(tmp_path: Path) -> None:
    config = RollbackConfig(output=tmp_path / "rolled")
    with output_directory(config.output, verb="rollback", config=config):
        pass
    with pytest.raises(ConfigError, match="was made by `dllm2rec rollback`: runs are those of train, tune, compare"):
        track(TrackConfig(directories=(config.output,)))
    with pytest.raises(StaleInputError, match="holds no finished output"):
        track(TrackConfig(directories=(tmp_path,)))
    with pytest.raises(ConfigError, match="no directory to track"):
        track(TrackConfig())
