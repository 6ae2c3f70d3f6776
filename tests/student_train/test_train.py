"""The verb ``train`` on a real Ray with DeepSpeed workers."""

import os
import shutil
from pathlib import Path

import pytest

from cluster.config import EngineConfig, WorkersConfig
from cluster.errors import ConfigError, OutputError, StaleInputError
from cluster.storage import read_manifest
from data_prep.schema import EMBEDDINGS_FILE
from student_train.config import DistillationConfig, ObjectiveConfig, StudentConfig, TrainConfig
from student_train.exported import ExportedStudent
from student_train.train import check_inputs, train


def config(dataset: Path, output: Path, **changes: object) -> TrainConfig:
    settings = {
        "dataset": dataset,
        "output": output,
        "shape": StudentConfig(width=16, heads=2, layers=1, history=5, dropout=0.1),
        "objective": ObjectiveConfig(loss="softmax"),
        "learning_rate": 0.01,
        "batch": 16,
        "epochs": 4,
    }
    return TrainConfig(**(settings | changes))


@pytest.mark.engine
def test_two_workers_train_a_distilled_student(ray_local: None, dataset: Path, labels: Path, tmp_path: Path) -> None:
    two = WorkersConfig(count=2, cpus=0.5)
    output = train(config(dataset, tmp_path / "student", labels=labels, workers=two, engine=EngineConfig(zero_stage=3)))
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
        "items.parquet",
        "manifest.json",
        "model.safetensors",
    ]


@pytest.mark.engine
def test_a_killed_worker_costs_nothing_but_time(
    ray_local: None, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(dataset, tmp_path / "whole")
    whole = read_manifest(train(settings)).metrics
    from student_train import train as module

    monkeypatch.setattr(module, "train_worker", DiesOnce(tmp_path / "died"))
    killed = settings.model_copy(update={"output": tmp_path / "killed", "workers": WorkersConfig(max_failures=1)})
    resumed = read_manifest(train(killed)).metrics
    assert (tmp_path / "died").exists()
    timing = {name for name in whole if "second" in name}
    assert {n: v for n, v in resumed.items() if n not in timing} == {n: v for n, v in whole.items() if n not in timing}


class DiesOnce:
    """The real worker, killed hard at its third report, the first time only."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, payload: dict) -> None:
        from ray import train as ray_train

        from student_train.train import train_worker

        report, mark, reports = ray_train.report, self.mark, []

        def dying_report(*args: object, **kwargs: object) -> None:
            reports.append(None)
            if len(reports) == 3 and not mark.exists():
                mark.touch()
                os._exit(1)
            report(*args, **kwargs)

        ray_train.report = dying_report
        try:
            train_worker(payload)
        finally:
            ray_train.report = report


@pytest.mark.engine
def test_more_workers_than_the_cluster_has_are_refused_at_once(ray_local: None, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"64 training workers ask for 64 CPU, the cluster has 2"):
        train(config(dataset, tmp_path / "student", workers=WorkersConfig(count=64)))
    assert not any(tmp_path.iterdir())


def test_a_missing_data_set_names_the_verb_to_run(tmp_path: Path) -> None:
    with pytest.raises(StaleInputError, match=r"run `dllm2rec prepare"):
        check_inputs(config(tmp_path / "nothing", tmp_path / "student"))


def test_labels_of_another_data_set_are_refused(dataset: Path, labels: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dataset"
    copy.mkdir()
    manifest = (dataset / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace(read_manifest(dataset).fingerprint, "0" * 64))
    with pytest.raises(StaleInputError, match=r"was made from another dataset"):
        check_inputs(config(copy, tmp_path / "student", labels=labels))


def test_a_list_longer_than_the_stored_one_is_refused(dataset: Path, labels: Path, tmp_path: Path) -> None:
    settings = config(dataset, tmp_path / "s", labels=labels, distillation=DistillationConfig(top_k=21))
    with pytest.raises(ConfigError, match=r"top_k. = 21, but .* holds lists of 20"):
        check_inputs(settings)


@pytest.mark.parametrize(
    ("distillation", "needed"),
    [({}, "embedding. = both"), ({"strategy": "hint", "embedding": "none"}, "strategy. = hint")],
)
def test_labels_without_what_the_strategy_needs_are_refused(
    dataset: Path, labels: Path, tmp_path: Path, distillation: dict[str, str], needed: str
) -> None:
    shutil.copytree(labels, tmp_path / "labels")
    (tmp_path / "labels" / EMBEDDINGS_FILE).unlink()
    taught = DistillationConfig(**distillation)
    settings = config(dataset, tmp_path / "s", labels=tmp_path / "labels", distillation=taught)
    with pytest.raises(StaleInputError, match=f"{needed} needs: run `dllm2rec teach` again"):
        check_inputs(settings)
    ranking_alone = settings.model_copy(update={"distillation": DistillationConfig(embedding="none")})
    assert set(check_inputs(ranking_alone)) == {"dataset", "labels", "teacher"}


def test_an_output_that_holds_something_else_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="already holds something"):
        train(config(dataset, tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "mine"
