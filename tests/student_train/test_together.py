"""Students that train together against the same ones trained one by one with a real DeepSpeed engine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import ConfigError, TrainingError
from student_train.config import TrainConfig
from student_train.loop import TrainingData, TrainerState, fit
from student_train.models.student import Student
from student_train.together import fit_together
from student_train.train import load_data

pytestmark = pytest.mark.engine

MEMBERS: tuple[dict[str, Any], ...] = (
    {},
    {"seed": 1, "learning_rate": 0.005, "weight_decay": 0.01, "patience": 1, "engine": {"gradient_clip": 0}},
    {
        "seed": 2,
        "average": 0.0,
        "epochs": 2,
        "shape": {"dropout": 0.3},
        "objective": {"dro_beta": 2.0},
        "distillation": {
            "lam": 0.9,
            "ed_weight": 1.0,
            "temperature": 0.7,
            "trust": 1.0,
            "gamma_position": 0.5,
            "gamma_confidence": 0.2,
            "gamma_consistency": 0.4,
            "cloze": 0.3,
            "beta": 2.0,
        },
    },
)
"""Different in all that members may differ in."""

Trained = tuple[Student, TrainerState] | TrainingError


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            settings[name] = merged(settings.get(name, {}), value) if isinstance(value, dict) else value
    return settings


def configs(dataset: Path, labels: Path | None, *changes: dict[str, Any], **settings: Any) -> list[TrainConfig]:
    shape = {"width": 16, "heads": 2, "layers": 1, "history": 5, "dropout": 0.1}
    common = {"dataset": dataset, "labels": labels, "shape": shape, "learning_rate": 0.01, "batch": 32, "epochs": 3}
    return [TrainConfig.model_validate(merged(common, settings, change)) for change in changes]


def rows(config: TrainConfig) -> TrainingData:
    """Everything, with a weak teacher, and without any history in some rows."""
    data = load_data(config)
    data.teacher_ndcg = {"ndcg@20": 0.05} if config.labels else {}
    data.train.history[:8] = len(data.train_count)
    return data


def alone(config: TrainConfig, data: TrainingData) -> tuple[Student, TrainerState]:
    return fit(config, data, lambda *_: True)


def together(members: Sequence[TrainConfig], data: TrainingData, at_once: int = 3) -> list[Trained]:
    return fit_together(members, data, lambda *_: True, at_once=at_once)


def check_same(found: Trained, expected: tuple[Student, TrainerState], data: TrainingData) -> None:
    assert not isinstance(found, TrainingError)
    (student, progress), (own, own_progress) = found, expected
    for record, own_record in zip(progress.history, own_progress.history, strict=True):
        assert record["epoch"] == own_record["epoch"]
        assert record["loss"] == pytest.approx(own_record["loss"], rel=1e-5)
        assert record["ndcg@20"] == pytest.approx(own_record["ndcg@20"], abs=2e-3)
    assert progress.best_epoch == own_progress.best_epoch
    history = data.validation.history
    assert torch.allclose(student.eval()(history), own.eval()(history), atol=3e-4)


@pytest.mark.parametrize(
    ("student", "loss", "strategy"),
    [
        ("sasrec", "softmax", "plain"),
        ("sasrec", "bce", "soft"),
        ("dros", "softmax", "dllm2rec"),
        ("gru4rec", "bce", "dllm2rec"),
        ("caser", "softmax", "soft"),
        ("hstu", "sampled_softmax", "dllm2rec"),
    ],
)
def test_each_member_ends_where_it_ends_alone(
    dataset: Path, labels: Path, student: str, loss: str, strategy: str
) -> None:
    taught = {} if strategy == "plain" else {"distillation": {"strategy": strategy}}
    settings = {"student": student, "loss": {"name": loss}, **taught}
    members = configs(dataset, labels if taught else None, *MEMBERS, **settings)
    data = rows(members[0])
    for config, found in zip(members, together(members, data, at_once=2), strict=True):
        check_same(found, alone(config, data), data)


def test_sampled_items_of_one_side_are_projected_as_alone(dataset: Path, labels: Path) -> None:
    settings = {
        "shape": {"output": "separate"},
        "loss": {"name": "sampled_softmax", "negatives": 3},
        "distillation": {"strategy": "soft", "lam": 0, "embedding": "input", "projector": "mlp"},
    }
    members = configs(dataset, labels, {}, {"seed": 1, "distillation": {"ed_weight": 1.0}}, **settings)
    data = rows(members[0])
    for config, found in zip(members, together(members, data), strict=True):
        check_same(found, alone(config, data), data)


def test_a_member_that_is_stopped_leaves_the_others_as_they_are(dataset: Path, labels: Path) -> None:
    members = configs(dataset, labels, *MEMBERS[:2], {"seed": 3, "distillation": {"lam": 0.2}}, patience=9)
    data = rows(members[0])
    seen: list[tuple[int, int]] = []

    def stop_first(place: int, progress: TrainerState) -> bool:
        seen.append((place, progress.epoch))
        return place != 0

    found = fit_together(members, data, stop_first, at_once=3)
    undisturbed = together(members, data)
    assert [epoch for place, epoch in seen if place == 0] == [1]
    for mine, expected in zip(found[1:], undisturbed[1:], strict=True):
        assert not isinstance(expected, TrainingError)
        check_same(mine, expected, data)


def test_a_member_that_diverges_leaves_with_its_error(dataset: Path) -> None:
    members = configs(dataset, None, {}, {"learning_rate": 1e30, "engine": {"gradient_clip": 0}}, epochs=2)
    data = rows(members[0])
    failed: list[dict[int, str]] = []
    found = fit_together(
        members, data, lambda *_: True, on_epoch=lambda now: failed.append({p: str(e) for p, e in now.items()})
    )
    assert isinstance(found[1], TrainingError)
    assert "member 1" in str(found[1])
    assert failed == [{1: str(found[1])}, {}]
    check_same(found[0], alone(members[0], data), data)


def test_members_of_two_shapes_are_refused(dataset: Path) -> None:
    members = configs(dataset, None, {}, {"shape": {"width": 32}})
    with pytest.raises(ConfigError, match=r"`shape\.width` is 16 for one member and 32 for another"):
        together(members, load_data(members[0]))
