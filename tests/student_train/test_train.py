"""The verb ``train`` on a real Ray with DeepSpeed workers."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest
import torch
from ray.train import TrainingFailedError

from cluster.config import DeepSpeedConfig, ResourcesConfig, TrackingConfig
from cluster.errors import ConfigError, OutputError, TrainingError
from cluster.storage import read_manifest
from cluster.tracking import Tracker
from data_prep.schema import RANKS
from student_train.config import LossConfig, ModelConfig, TrainConfig
from student_train.evaluation import scored, target_ranks
from student_train.exported import ExportedStudent
from student_train.rows import read_rows
from student_train.train import train


def config(dataset: Path, output: Path, **changes: object) -> TrainConfig:
    settings = {
        "dataset": dataset,
        "output": output,
        "model": ModelConfig(hidden_size=16, num_heads=2, num_layers=1, max_length=5, dropout=0.1),
        "loss": LossConfig(name="softmax"),
        "learning_rate": 0.01,
        "batch_size": 16,
        "epochs": 4,
    }
    return TrainConfig(**(settings | changes))


@pytest.fixture(scope="module")
def tracking(new_store: Callable[[], TrackingConfig]) -> TrackingConfig:
    return new_store()


@pytest.fixture(scope="module")
def distilled(
    ray_local: None, dataset: Path, labels: Path, tracking: TrackingConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A student of two workers, recorded and registered."""
    two = ResourcesConfig(workers=2, cpus=0.5)
    settings = config(dataset, tmp_path_factory.mktemp("trained") / "student", labels=labels, resources=two)
    update = {"deepspeed": DeepSpeedConfig(zero_stage=3), "tracking": tracking, "register_as": "distilled"}
    return train(settings.model_copy(update=update))


@pytest.mark.engine
def test_two_workers_train_a_distilled_student(distilled: Path, dataset: Path, labels: Path) -> None:
    output = distilled
    manifest = read_manifest(output, "train")
    assert manifest.counts["world_size"] == 2
    assert manifest.inputs["labels"] == read_manifest(labels).fingerprint
    assert manifest.inputs["dataset"] == read_manifest(dataset).fingerprint
    assert manifest.metrics["test_hr@20"] >= manifest.metrics["test_hr@5"] > 0.1
    student = ExportedStudent.load(output)
    assert sum(p.numel() for p in student.student.parameters()) == manifest.counts["parameters"]
    assert sorted(file.name for file in output.iterdir()) == [
        "config.json",
        "curve.json",
        "gate.parquet",
        "items.parquet",
        "manifest.json",
        "model.onnx",
        "model.safetensors",
    ]


def test_one_worker_trains_in_this_process_and_is_recorded_as_it_goes(
    dataset: Path, new_store: Callable[[], TrackingConfig], tmp_path: Path
) -> None:
    tracking, threads = new_store(), torch.get_num_threads()
    two_threads = ResourcesConfig(cpus=2)
    for name in ("first", "second"):
        update = {"resources": two_threads, "tracking": tracking, "track": True}
        train(config(dataset, tmp_path / name, **update), in_process=True)
    first, second = (read_manifest(tmp_path / name).metrics for name in ("first", "second"))
    assert first["test_ndcg@20"] == second["test_ndcg@20"] > 0
    assert torch.get_num_threads() == threads
    client = mlflow.MlflowClient(Tracker(tracking).uri)
    for run in client.search_runs(["1"]):
        history = client.get_metric_history(run.info.run_id, "validation_ndcg_at_20")
        assert [point.step for point in history] == [1, 2, 3, 4]
        assert len({point.timestamp for point in history}) > 1


@pytest.mark.engine
def test_the_ranks_of_the_gate_rows_of_all_workers_are_those_of_the_student(distilled: Path, dataset: Path) -> None:
    student = ExportedStudent.load(distilled).student
    rows = read_rows(dataset, "gate", length=5, padding=student.n_items)
    blocks = scored(student, rows, torch.device("cpu"))
    expected = torch.cat([target_ranks(scores_BN, block.target) for block, scores_BN in blocks])
    ranks = pq.read_table(distilled / "gate.parquet")
    assert ranks.schema.equals(RANKS)
    found = dict(zip(ranks["row_id"].to_pylist(), ranks["rank"].to_pylist(), strict=True))
    assert found == dict(zip(rows.row_id.tolist(), expected.tolist(), strict=True))


@pytest.mark.engine
def test_a_recorded_training_has_its_epochs_inputs_and_version(
    distilled: Path, dataset: Path, labels: Path, tracking: TrackingConfig
) -> None:
    uri = Tracker(tracking).uri
    client = mlflow.MlflowClient(uri, uri)
    (run,) = client.search_runs(["1"])
    assert client.get_model_version("distilled", "1").run_id == run.info.run_id
    curve = json.loads((distilled / "curve.json").read_text())
    history = client.get_metric_history(run.info.run_id, "validation_ndcg_at_20")
    assert [(point.step, point.value) for point in history] == [(r["epoch"], r["ndcg@20"]) for r in curve]
    assert len({point.timestamp for point in history}) > 1  # as they came, not at the end
    assert run.data.metrics["test_hr_at_20"] == read_manifest(distilled).metrics["test_hr@20"]
    assert run.data.params["deepspeed.zero_stage"] == "3"
    assert run.data.tags["fingerprint.dataset"] == read_manifest(dataset).fingerprint
    assert run.data.tags["fingerprint.labels"] == read_manifest(labels).fingerprint
    assert run.data.tags["version.torch"] and run.info.status == "FINISHED"


@pytest.mark.engine
def test_a_killed_worker_costs_nothing_but_time(
    ray_local: None, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(dataset, tmp_path / "whole")
    whole = read_manifest(train(settings)).metrics  # by this process, without Ray
    from student_train import train as module

    monkeypatch.setattr(module, "train_worker", DiesOnce(tmp_path / "died"))
    update = {"output": tmp_path / "killed", "max_failures": 1, "checkpoint_seconds": 0}
    killed = settings.model_copy(update=update)
    resumed = read_manifest(train(killed)).metrics
    assert (tmp_path / "died").exists()
    timing = {name for name in whole if "second" in name}
    assert {n: v for n, v in resumed.items() if n not in timing} == {n: v for n, v in whole.items() if n not in timing}


class DiesOnce:
    """The real worker, killed hard at its third report, the first time only; every time without a mark."""

    def __init__(self, mark: Path | None) -> None:
        self.mark = mark

    def __call__(self, payload: dict) -> None:
        from ray import train as ray_train

        from student_train.train import train_worker

        report, mark, reports = ray_train.report, self.mark, []

        def dying_report(*args: object, **kwargs: object) -> None:
            reports.append(None)
            if len(reports) == 3 and not (mark and mark.exists()):
                if mark:
                    mark.touch()
                os._exit(1)
            report(*args, **kwargs)

        ray_train.report = dying_report
        try:
            train_worker(payload)
        finally:
            ray_train.report = report


def resumes(payload: dict) -> None:
    """The real worker, which must find a checkpoint."""
    from ray import train as ray_train

    from student_train.train import train_worker

    if ray_train.get_checkpoint() is None:
        raise TrainingError("there is no checkpoint")
    train_worker(payload)


@pytest.mark.engine
def test_only_the_very_same_training_resumes_from_what_a_stopped_one_left(
    ray_local: None, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from student_train import train as module

    storage = {"storage": str(tmp_path / "storage"), "max_failures": 1, "checkpoint_seconds": 0}
    settings = config(dataset, tmp_path / "first", epochs=8, **storage)
    with monkeypatch.context() as patched:
        patched.setattr(module, "train_worker", DiesOnce(None))
        with pytest.raises(TrainingFailedError):
            train(settings)
        patched.setattr(module, "train_worker", resumes)
        with pytest.raises(TrainingError, match="there is no checkpoint"):
            train(settings.model_copy(update={"output": tmp_path / "other", "seed": 1}))
        moved = settings.model_copy(update={"output": tmp_path / "moved", "resources": ResourcesConfig(cpus=0.5)})
        train(moved)
    curve = json.loads((tmp_path / "moved" / "curve.json").read_text())
    assert [record["epoch"] for record in curve] == list(range(1, 9))
    assert not (tmp_path / "storage").exists()


@pytest.mark.engine
def test_more_workers_than_the_cluster_has_are_refused_at_once(ray_local: None, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"64 training workers ask for 64 CPU, the cluster has 2"):
        train(config(dataset, tmp_path / "student", resources=ResourcesConfig(workers=64)))
    assert not any(tmp_path.iterdir())


def test_an_output_that_holds_something_else_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="already holds something"):
        train(config(dataset, tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "mine"
