"""The training loop with a real DeepSpeed engine in one process."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cluster.config import DeepSpeedConfig
from cluster.errors import TrainingError, UserError
from student_train.config import DistillationConfig, LossConfig, ModelConfig, TrainConfig
from student_train.evaluation import evaluate, metric_means
from student_train.loop import Trainer, TrainerState, build, fit, steps_per_epoch
from student_train.worker import load_data

pytestmark = pytest.mark.engine
MODEL = ModelConfig(hidden_size=16, num_heads=2, num_layers=1, max_length=5, dropout=0.1)


def config(dataset: Path, labels: Path | None = None, **changes: object) -> TrainConfig:
    settings = {
        "dataset": dataset,
        "labels": labels,
        "model": MODEL,
        "loss": LossConfig(name="softmax"),
        "learning_rate": 0.01,
        "batch_size": 32,
        "epochs": 6,
    }
    return TrainConfig(**(settings | changes))


def ignore(progress: TrainerState, save: Callable[[Path], None]) -> bool:
    """No report; the training goes on."""
    return True


@pytest.mark.parametrize("student", ["gru4rec", "sasrec", "dros"])
def test_a_student_learns_the_rule_of_the_data(dataset: Path, student: str) -> None:
    settings = config(
        dataset,
        model=MODEL.model_copy(update={"name": student}),
        epochs=25,
        loss=LossConfig(name="softmax", dro_weight=0.02),
    )
    _, progress = fit(settings, load_data(settings), ignore)
    assert progress.best["hr@5"] > 0.6
    assert progress.best["ndcg@20"] == max(record["ndcg@20"] for record in progress.history)


def test_the_returned_student_is_the_best_one_of_validation(dataset: Path, labels: Path) -> None:
    settings = config(dataset, labels)
    data = load_data(settings)
    student, progress = fit(settings, data, ignore)
    found = metric_means(evaluate(student, data.validation, torch.device("cpu")))
    assert found == {name: value for name, value in progress.best.items() if name != "loss"}


def test_the_same_seed_gives_the_same_result_and_another_seed_another(dataset: Path, labels: Path) -> None:
    runs = []
    for seed in (0, 0, 1):
        settings = config(dataset, labels, seed=seed, epochs=2)
        runs.append(fit(settings, load_data(settings), ignore)[1].history)
    assert runs[0] == runs[1] != runs[2]


def test_an_epoch_ends_with_an_update(dataset: Path) -> None:
    settings = config(dataset, deepspeed=DeepSpeedConfig(gradient_accumulation=3))
    rows = len(load_data(settings).train)
    assert steps_per_epoch(settings, rows, 1) % 3 == 0 < -(-rows // 32) % 3
    too_many = settings.model_copy(update={"deepspeed": DeepSpeedConfig(gradient_accumulation=1000)})
    with pytest.raises(TrainingError, match=r"gradient_accumulation` = 1000, but an epoch has \d+ batches of 32 rows"):
        Trainer(too_many, load_data(too_many))


def test_training_stops_after_patience_evaluations_without_gain(dataset: Path) -> None:
    settings = config(dataset, learning_rate=1e-9, epochs=50, patience=3)
    _, progress = fit(settings, load_data(settings), ignore)
    assert progress.epoch == progress.best_epoch + 3 < 50


def test_a_distilled_student_takes_both_parts_of_the_teacher(dataset: Path, labels: Path) -> None:
    histories = []
    for lam, ed_weight in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        settings = config(dataset, labels, distillation=DistillationConfig(lam=lam, ed_weight=ed_weight), epochs=3)
        histories.append(fit(settings, load_data(settings), ignore)[1].history)
    assert histories[0] != histories[1]
    assert histories[0] != histories[2]


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_rows(dataset: Path) -> None:
    settings = config(dataset)
    data = load_data(settings)
    data.train_count = data.train_count.float()
    data.train_count[:] = torch.nan
    with pytest.raises(UserError, match=r"loss is nan at epoch 1, step 0, worker 0 \(rows \d+"):
        fit(settings.model_copy(update={"model": MODEL.model_copy(update={"name": "dros"})}), data, ignore)


@pytest.mark.parametrize(("stage", "accumulation"), [(0, 1), (0, 3), (2, 1)])
def test_a_resumed_training_ends_where_an_undisturbed_one_does(
    dataset: Path, tmp_path: Path, stage: int, accumulation: int
) -> None:
    deepspeed = DeepSpeedConfig(zero_stage=stage, gradient_accumulation=accumulation)
    settings = config(dataset, epochs=4, deepspeed=deepspeed)

    def save_second(progress: TrainerState, save: Callable[[Path], None]) -> bool:
        if progress.epoch == 2:
            save(tmp_path)
        return True

    _, whole = fit(settings, load_data(settings), save_second)
    _, resumed = fit(settings, load_data(settings), ignore, resume=tmp_path)
    assert resumed.history == whole.history


@pytest.mark.parametrize("strategy", ["soft", "htd"])
def test_a_distilled_student_trains_in_bfloat16(dataset: Path, labels: Path, strategy: str) -> None:
    settings = config(
        dataset,
        labels,
        epochs=10,
        deepspeed=DeepSpeedConfig(zero_stage=1, precision="bf16"),
        distillation=DistillationConfig(strategy=strategy),
    )
    _, progress = fit(settings, load_data(settings), ignore)
    assert progress.best["hr@5"] > 0.4


@pytest.mark.parametrize("stage", [1, 3])
def test_every_zero_stage_trains_like_stage_zero(dataset: Path, labels: Path, stage: int) -> None:
    histories = []
    for zero_stage in (0, stage):
        settings = config(dataset, labels, epochs=2, deepspeed=DeepSpeedConfig(zero_stage=zero_stage))
        histories.append(fit(settings, load_data(settings), ignore)[1].history)
    for plain, sharded in zip(*histories, strict=True):
        assert plain == pytest.approx(sharded, rel=1e-3, abs=0.04)


def test_all_workers_start_from_the_same_weights(dataset: Path) -> None:
    settings = config(dataset)
    first = build(settings, load_data(settings)).state_dict()
    second = build(settings, load_data(settings, rank=1, world_size=2)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
