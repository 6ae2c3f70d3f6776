"""Objectives and the ranking distillation against the formulas written out."""

import math

import pytest
import torch
from torch.nn import functional

from student_train.config import DistillationConfig, ObjectiveConfig, TrainConfig
from student_train.distillation.importance import importance
from student_train.distillation.ranking import ranking_distillation
from student_train.objectives import OBJECTIVES
from student_train.objectives.dro import dro, propensity
from student_train.rows import Rows
from student_train.step import batch_losses, sample_negatives

SCORES = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, -0.5]], dtype=torch.float64)
TARGET = torch.tensor([2, 0])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_bce_is_the_mean_over_targets_and_negatives() -> None:
    loss = OBJECTIVES["bce"].loss(SCORES, TARGET, torch.tensor([[0], [2]]))
    terms = [sigmoid(2.0), sigmoid(1.0), 1 - sigmoid(0.5), 1 - sigmoid(-0.5)]
    assert loss.item() == pytest.approx(-sum(map(math.log, terms)) / 4)


def test_softmax_is_the_cross_entropy_over_the_catalogue() -> None:
    loss = OBJECTIVES["softmax"].loss(SCORES, TARGET, torch.empty(2, 0, dtype=torch.long))
    rows = [(2.0, [0.5, -1.0, 2.0]), (1.0, [1.0, 0.0, -0.5])]
    expected = sum(-math.log(math.exp(t) / sum(map(math.exp, row))) for t, row in rows) / 2
    assert loss.item() == pytest.approx(expected)


def test_propensity_is_smoothed_normalised_and_flattened() -> None:
    assert propensity(torch.tensor([0, 2])).tolist() == pytest.approx([0.25**0.05, 0.75**0.05])


def test_dro_is_the_papers_formula() -> None:
    p = [0.9, 0.8, 0.95]
    beta = 0.7
    rows = []
    for row, target in zip(SCORES.tolist(), TARGET.tolist(), strict=True):
        every = sum(math.exp(p[j] * row[j] ** 2 / beta) for j in range(3))
        own = math.exp(p[target] * row[target] ** 2 / beta)
        wanted = math.exp(p[target] * (row[target] - 1) ** 2 / beta)
        rows.append(math.log(every - own + wanted))
    found = dro(SCORES, TARGET, torch.tensor(p, dtype=torch.float64), beta)
    assert found.item() == pytest.approx(sum(rows) / 2)


def test_dro_stays_finite_for_large_scores() -> None:
    assert dro(torch.full((2, 3), 60.0), TARGET, torch.ones(3), 1.0).isfinite()


@pytest.mark.parametrize("name", ["bce", "softmax"])
def test_ranking_distillation_weighs_log_likelihoods_of_the_candidates(name: str) -> None:
    teacher, confidence = torch.tensor([[2, 1], [0, 1]]), torch.tensor([1.2, 0.8], dtype=torch.float64)
    config = DistillationConfig()
    weights = importance(SCORES, teacher, confidence, config)
    likelihood = functional.logsigmoid(SCORES) if name == "bce" else functional.log_softmax(SCORES, 1)
    expected = -sum(weights[b, k] * likelihood[b, teacher[b, k]] for b in range(2) for k in range(2)) / 2
    found = ranking_distillation(SCORES, teacher, confidence, config, OBJECTIVES[name].log_likelihood)
    assert found.item() == pytest.approx(expected.item())


def test_batch_losses_add_up_with_their_weights() -> None:
    batch = Rows(torch.arange(2), torch.zeros(2, 1).long(), TARGET, torch.tensor([[2], [0]]), torch.ones(2))
    objective = ObjectiveConfig(loss="softmax", dro_weight=0.25)
    config = TrainConfig(student="dros", objective=objective, distillation=DistillationConfig(lam=0.5, top_k=1))
    losses = batch_losses(SCORES, batch, torch.ones(3), config, torch.Generator())
    ranking = ranking_distillation(
        SCORES, batch.teacher_items, batch.confidence, config.distillation, OBJECTIVES["softmax"].log_likelihood
    )
    assert losses.dro.item() == pytest.approx(0.25 * dro(SCORES, TARGET, torch.ones(3), 1.0).item())
    assert losses.ranking.item() == pytest.approx(0.5 * ranking.item())
    assert losses.total.item() == pytest.approx(sum(map(float, (losses.student, losses.dro, losses.ranking))))


def test_a_plain_student_has_neither_dro_nor_ranking_loss() -> None:
    batch = Rows(torch.arange(2), torch.zeros(2, 1).long(), TARGET)
    losses = batch_losses(SCORES, batch, torch.ones(3), TrainConfig(), torch.Generator())
    assert losses.dro.item() == losses.ranking.item() == 0.0


def test_negatives_are_uniform_over_all_items_but_the_target() -> None:
    target = torch.arange(4).repeat(3000)
    drawn = sample_negatives(target, 4, 2, torch.Generator().manual_seed(0))
    for item in range(4):
        counts = torch.bincount(drawn[target == item].flatten(), minlength=4)
        assert counts[item] == 0
        assert counts.sum() == 6000
        assert (counts[torch.arange(4) != item] - 2000).abs().max() < 200
