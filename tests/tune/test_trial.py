"""A trial in this process, with real DeepSpeed engines."""

import math
import os
from pathlib import Path

import pytest

from cluster.config import ResourcesConfig
from cluster.errors import TrainingError
from data_prep.schema import ITEMS_FILE
from student_train.config import DistillationConfig, ModelConfig, TrainConfig
from student_train.loop import fit
from student_train.worker import load_data
from tune.journal import Progress
from tune.trial import Plan, Training, Trial, measured, trained_config

MODEL = ModelConfig(hidden_size=8, num_heads=1, num_layers=1, max_length=5)


def config(dataset: Path, **changes: object) -> TrainConfig:
    return TrainConfig(**{"dataset": dataset, "model": MODEL, "batch_size": 32, "epochs": 4} | changes)


def plan(train: TrainConfig, **settings: object) -> Plan:
    return Plan(train=train.model_dump(mode="json"), resources=ResourcesConfig(), **settings)


def progress(report: dict) -> Progress:
    return Progress.model_validate_json(report["progress"])


@pytest.mark.engine
def test_the_seeds_of_a_setting_train_in_step_and_their_median_is_reported(dataset: Path) -> None:
    train = config(dataset)
    training = Training(plan(train, seeds=2, decisions=(2,)), train, load_data(train))
    reports = [training.step(seconds=math.inf)]
    while not reports[-1]["complete"]:
        reports.append(training.step(seconds=math.inf))
    assert [report["epoch"] for report in reports] == [2, 4]
    assert [report["complete"] for report in reports] == [False, True]
    found = progress(reports[-1])
    for seed, history in found.histories.items():
        alone = train.model_copy(update={"seed": seed})
        assert history == fit(alone, load_data(alone), lambda state, save: True)[1].history
    assert reports[-1]["ndcg@20"] == found.best("ndcg@20")
    assert reports[0]["newest"] == progress(reports[0]).newest("ndcg@20")


@pytest.mark.engine
def test_a_trial_resumes_from_its_checkpoint_as_if_nothing_had_happened(dataset: Path, tmp_path: Path) -> None:
    train, common = config(dataset), {"seeds": 2}
    whole = Training(plan(train, **common), train, load_data(train))
    whole.step(seconds=0)
    whole.save(tmp_path)
    resumed = Training(plan(train, **common), train, load_data(train), tmp_path)
    ends = [progress(training.step(seconds=math.inf)).histories for training in (whole, resumed)]
    assert ends[0] == ends[1]


@pytest.mark.engine
def test_one_student_of_a_comparison_is_measured_on_test_when_it_ends(dataset: Path) -> None:
    train = config(dataset, epochs=2)
    training = Training(plan(train, test=True), train, load_data(train))
    assert "test_hr@20" not in training.step(seconds=0)
    measures = progress(training.step(seconds=0)).measures
    assert {"test_hr@20", "validation_ndcg@20", "test_hr@20_low", "parameters", "epochs"} <= set(measures)


def test_what_training_refuses_is_an_error_of_the_trial(dataset: Path, labels: Path) -> None:
    with pytest.raises(TrainingError, match=r"`model`: num_heads 3 must divide hidden_size 8"):
        trained_config(plan(config(dataset)), {"model.num_heads": 3})
    one_side = config(dataset, labels=labels, distillation=DistillationConfig(embedding="input"))
    with pytest.raises(TrainingError, match=r"set `model\.output` to separate"):
        trained_config(plan(one_side), {"learning_rate": 0.1})


def test_only_what_is_asked_for_is_measured(dataset: Path) -> None:
    assert (dataset / ITEMS_FILE).is_file()
    assert measured(config(dataset), ("ndcg@20",)) == {}
    found = measured(config(dataset), ("ndcg@20", "size", "latency"))
    assert set(found) == {"size", "latency"}
    assert found["latency"] > 0
    wider = config(dataset, model=MODEL.model_copy(update={"hidden_size": 16}))
    assert measured(wider, ("size",))["size"] > found["size"]


@pytest.mark.parametrize(("gpus", "seen"), [(0, ""), (1, "3")])
def test_a_trial_that_asks_for_no_gpu_sees_none(gpus: float, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    Trial.setup(object.__new__(Trial), {}, Plan(train={}, resources=ResourcesConfig(gpus=gpus)))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
