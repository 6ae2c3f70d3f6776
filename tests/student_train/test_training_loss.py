"""The loss of a batch: its parts, when the whole catalogue is scored, and the figures of the official code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from student_train.components import LOSSES, STRATEGIES
from student_train.config import DistillationConfig, LossConfig, ModelConfig, TrainConfig
from student_train.distillation.official import official_weights
from student_train.distilled_student import DistilledStudent, StudentOutput
from student_train.losses.dro import dro, propensity
from student_train.rows import Rows, TeacherLabels
from student_train.training_loss import Losses, Scorer, TrainingLoss

GOLDEN = json.loads((Path(__file__).parent / "golden" / "official_losses.json").read_text())
N = 12
COUNT = torch.arange(N)
MODEL = ModelConfig(hidden_size=8, num_heads=1, num_layers=1, max_length=4, dropout=0)
DROS = MODEL.model_copy(update={"name": "dros"})


def rows(teacher: bool = True) -> Rows:
    generator = torch.Generator().manual_seed(0)
    items = torch.stack([torch.randperm(N, generator=generator)[:4] for _ in range(6)])
    distance = torch.rand(6, 4, generator=generator).sort(1).values
    taught = TeacherLabels(items, -distance, distance, torch.rand(6, generator=generator) + 0.5)
    history = torch.randint(N, (6, 4), generator=generator)
    history[torch.arange(4) < torch.tensor([0, 0, 1, 2, 3, 0])[:, None]] = N
    return Rows(torch.arange(6), history, torch.randint(N, (6,), generator=generator), taught if teacher else None)


def student(config: TrainConfig) -> DistilledStudent:
    torch.manual_seed(0)
    return DistilledStudent(config.model, N, torch.randn(N, 16), config.distillation)


def loss_of(step: TrainingLoss, model: Scorer, batch: Rows, seed: int = 0) -> Losses:
    generator = torch.Generator().manual_seed(seed)
    return step(model, step.prepare(batch, generator), generator)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_teaches_under_every_loss(strategy: str, loss: str) -> None:
    distillation = DistillationConfig(strategy=strategy, top_k=4)
    config = TrainConfig(model=MODEL, loss=LossConfig(name=loss), distillation=distillation)
    taught, step = student(config), TrainingLoss(config, COUNT)
    optimizer = torch.optim.Adam(taught.parameters(), 0.01)
    distilled = []
    for seed in range(30):
        losses = loss_of(step, taught, rows(), seed % 5)
        assert losses.total.isfinite()
        optimizer.zero_grad()
        losses.distillation.backward()
        optimizer.step()
        distilled.append(losses.distillation.item())
    assert sum(distilled[-10:]) < sum(distilled[:10])


def test_the_parts_add_up_with_their_weights() -> None:
    config = TrainConfig(
        model=DROS,
        loss=LossConfig(dro_weight=0.25),
        distillation=DistillationConfig(strategy="dllm2rec", top_k=4, lam=0.5),
    )
    taught, batch = student(config), rows()
    losses = loss_of(TrainingLoss(config, COUNT), taught, batch)
    twice = config.model_copy(update={"distillation": config.distillation.model_copy(update={"lam": 1.0})})
    doubled = loss_of(TrainingLoss(twice, COUNT), taught, batch)
    robust = dro(taught(batch.history).scores, batch.target, propensity(COUNT), 1.0)
    assert losses.dro.item() == pytest.approx(0.25 * robust.item())
    assert doubled.distillation.item() == pytest.approx(2 * losses.distillation.item())
    assert losses.total.item() == pytest.approx(sum(map(float, vars(losses).values())))


def test_a_plain_student_has_its_own_loss_alone() -> None:
    config = TrainConfig(model=MODEL)
    plain = DistilledStudent(MODEL, N, None, config.distillation)
    losses = loss_of(TrainingLoss(config, COUNT), plain, rows(teacher=False))
    assert losses.dro.item() == losses.distillation.item() == losses.cloze.item() == 0.0


class Asked:
    """Notes which items are scored."""

    def __init__(self, config: TrainConfig) -> None:
        self.model = student(config)
        self.items: list[Tensor | None] = []

    def __call__(self, history: Tensor, items: Tensor | None, compared: Tensor | None) -> StudentOutput:
        self.items.append(items)
        return self.model(history, items, compared)


@pytest.mark.parametrize(
    ("changes", "whole"),
    [
        ({"loss": LossConfig(name="bce", negatives=2)}, False),
        ({"loss": LossConfig(name="bce"), "model": DROS}, True),
        ({"loss": LossConfig(name="bce", dro_weight=0.0), "model": DROS}, False),
        ({"loss": LossConfig(name="gbce", dro_weight=0.1)}, True),
        ({"loss": LossConfig(name="softmax")}, True),
    ],
)
def test_the_catalogue_is_scored_only_where_a_loss_needs_it(changes: dict[str, Any], whole: bool) -> None:
    config = TrainConfig(**{"model": MODEL, "distillation": DistillationConfig(lam=0, cloze=0)} | changes)
    asked = Asked(config)
    loss_of(TrainingLoss(config, COUNT), asked, rows())
    assert [items is None for items in asked.items] == [whole]
    if not whole:
        assert asked.items[0].shape == (6, 1 + config.loss.negatives)


@pytest.mark.parametrize(
    ("loss", "strategy", "drawn"),
    [("softmax", "soft", 0), ("softmax", "dllm2rec-official", 1), ("bce", "soft", 1), ("bce", "dllm2rec-official", 1)],
)
def test_negatives_are_drawn_only_where_they_are_used(loss: str, strategy: str, drawn: int) -> None:
    distillation = DistillationConfig(strategy=strategy, top_k=4)
    config = TrainConfig(model=MODEL, loss=LossConfig(name=loss), distillation=distillation)
    step, drawings = TrainingLoss(config, COUNT), []
    draw = step.student_loss.draw
    step.student_loss.draw = lambda *of: drawings.append(of) or draw(*of)  # type: ignore[method-assign]
    loss_of(step, student(config), rows())
    assert len(drawings) == drawn


@pytest.mark.parametrize("case", GOLDEN)
def test_the_official_form_gives_the_official_codes_figures(case: dict[str, Any]) -> None:
    scores = torch.tensor(case["scores"], dtype=torch.float64)
    items = torch.tensor(case["teacher_items"])
    distance = torch.tensor(case["teacher_distances"], dtype=torch.float64)
    gammas = {name: case[name] for name in ("gamma_position", "gamma_confidence", "gamma_consistency")}
    config = TrainConfig(
        loss=LossConfig(name="bce", dro_weight=case["alpha"], dro_beta=case["beta"]),
        distillation=DistillationConfig(strategy="dllm2rec-official", lam=case["lam"], top_k=3, **gammas),
    )
    target, negative = torch.tensor(case["target"]), torch.tensor(case["negative"])
    batch = Rows(target, target[:, None], target, TeacherLabels(items, -distance, distance, torch.ones(len(target))))
    step = TrainingLoss(config, torch.tensor(case["item_count"]))
    step.propensity_N = torch.tensor(case["propensity"], dtype=torch.float64)
    step.student_loss.draw = lambda *_: negative[:, None]  # type: ignore[method-assign]

    def model(history: Tensor, wanted: Tensor | None, _: Tensor | None) -> StudentOutput:
        return StudentOutput(scores if wanted is None else scores.gather(1, wanted), torch.zeros(()))

    losses = loss_of(step, model, batch)
    expected = case["expected"]
    weights = official_weights(scores, items, distance, config.distillation)
    assert torch.allclose(weights, torch.tensor(expected["weight"], dtype=torch.float64), atol=1e-6)
    assert losses.student.item() == pytest.approx(expected["bce"], abs=1e-6)
    assert losses.dro.item() == pytest.approx(case["alpha"] * expected.get("dros", 0), abs=1e-6)
    assert losses.distillation.item() == pytest.approx(case["lam"] * expected["ranking_distillation"], abs=1e-6)
    assert losses.total.item() == pytest.approx(expected["total"], abs=1e-6)
