"""Objectives and the DRO term against the formulas written out."""

import math

import pytest
import torch
from torch.nn import functional

from student_train.components import LOSSES
from student_train.config import LossConfig
from student_train.losses import student_loss
from student_train.losses.base import Items
from student_train.losses.dro import dro, propensity

SCORES = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, -0.5]], dtype=torch.float64)
TARGET = torch.tensor([2, 0])
NEGATIVE = torch.tensor([[0], [2]])
POPULARITY = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def loss(name: str, negative: torch.Tensor = NEGATIVE, **settings: object) -> float:
    made = student_loss(LossConfig(name=name, **settings))
    target_scores = SCORES.gather(1, TARGET[:, None])[:, 0]
    others = SCORES if made.full else SCORES.gather(1, negative)
    return made.loss(target_scores, others, Items(TARGET, negative, POPULARITY)).mean().item()


def test_bce_is_the_mean_over_targets_and_negatives() -> None:
    terms = [sigmoid(2.0), sigmoid(1.0), 1 - sigmoid(0.5), 1 - sigmoid(-0.5)]
    assert loss("bce") == pytest.approx(-sum(map(math.log, terms)) / 4)


def test_gbce_raises_the_target_probability_to_its_power() -> None:
    rate = 1 / 2
    beta = rate * (0.6 * (1 - 1 / rate) + 1 / rate)
    terms = [sigmoid(2.0) ** beta, sigmoid(1.0) ** beta, 1 - sigmoid(0.5), 1 - sigmoid(-0.5)]
    assert loss("gbce", gbce_calibration=0.6) == pytest.approx(-sum(map(math.log, terms)) / 4)


def test_gbce_without_calibration_is_bce() -> None:
    assert loss("gbce", gbce_calibration=0.0) == pytest.approx(loss("bce"))


def test_softmax_is_the_cross_entropy_over_the_catalogue() -> None:
    rows = [(2.0, [0.5, -1.0, 2.0]), (1.0, [1.0, 0.0, -0.5])]
    expected = sum(-math.log(math.exp(t) / sum(map(math.exp, row))) for t, row in rows) / 2
    assert loss("softmax") == pytest.approx(expected)


def test_sampled_softmax_takes_off_how_often_a_negative_is_expected() -> None:
    first = math.log1p(math.exp(0.5) / 0.5 / math.exp(2.0))
    second = math.log1p(math.exp(-0.5) / 0.2 / math.exp(1.0))
    assert loss("sampled_softmax") == pytest.approx((first + second) / 2)


def test_a_negative_that_is_the_target_does_not_count() -> None:
    assert loss("sampled_softmax", TARGET[:, None]) == pytest.approx(0)


def test_sampled_softmax_with_many_negatives_comes_to_the_full_one() -> None:
    made = student_loss(LossConfig(name="sampled_softmax", negatives=200_000))
    generator = torch.Generator().manual_seed(0)
    drawn = made.draw(TARGET, TARGET[:, None], POPULARITY, generator)
    assert loss("sampled_softmax", drawn) == pytest.approx(loss("softmax"), abs=0.01)


@pytest.mark.parametrize("name", LOSSES)
def test_negatives_follow_their_distribution(name: str) -> None:
    made = student_loss(LossConfig(name=name, negatives=3))
    popularity = torch.tensor([0.4, 0.3, 0.2, 0.1])
    target, history = torch.full((8000,), 1), torch.tensor([4, 3]).expand(8000, 2)
    drawn = made.draw(target, history, popularity, torch.Generator().manual_seed(0))
    share = torch.bincount(drawn.flatten(), minlength=4) / drawn.numel()
    expected = popularity if name == "sampled_softmax" else torch.tensor([0.5, 0, 0.5, 0])
    assert torch.allclose(share, expected, atol=0.02)


def test_only_items_off_the_history_are_drawn_and_each_of_them() -> None:
    made, n_items = student_loss(LossConfig(name="bce", negatives=500)), 9
    history = torch.tensor([[n_items, 4, 4, 0], [8, 7, 6, 5], [n_items, n_items, n_items, n_items]])
    drawn = made.draw(torch.tensor([8, 5, 3]), history, torch.ones(n_items) / n_items, torch.Generator())
    found = [set(row) for row in drawn.tolist()]
    assert found == [{1, 2, 3, 5, 6, 7}, {0, 1, 2, 3, 4}, {0, 1, 2, 4, 5, 6, 7, 8}]


def test_a_history_of_the_whole_catalogue_leaves_any_item_to_draw() -> None:
    made = student_loss(LossConfig(name="bce"))
    drawn = made.draw(torch.tensor([0]), torch.tensor([[1]]), torch.ones(2) / 2, torch.Generator())
    assert drawn.shape == (1, 1) and 0 <= drawn.item() < 2


@pytest.mark.parametrize("name", LOSSES)
def test_log_likelihood_is_that_of_the_loss(name: str) -> None:
    items = torch.tensor([[1, 0]]).expand(len(SCORES), 2)
    found = student_loss(LossConfig(name=name)).log_likelihood(SCORES, items)
    expected = functional.log_softmax(SCORES, 1) if "softmax" in name else functional.logsigmoid(SCORES)
    assert torch.equal(found, expected[:, [1, 0]])


def test_propensity_is_smoothed_normalised_and_flattened() -> None:
    assert propensity(torch.tensor([0, 2])).tolist() == pytest.approx([0.25**0.05, 0.75**0.05])


P = [0.9, 0.8, 0.95]


def test_dro_is_the_papers_formula() -> None:
    beta = 0.7
    rows = []
    for row, target in zip(SCORES.tolist(), TARGET.tolist(), strict=True):
        every = sum(math.exp(P[j] * row[j] ** 2 / beta) for j in range(3))
        own = math.exp(P[target] * row[target] ** 2 / beta)
        wanted = math.exp(P[target] * (row[target] - 1) ** 2 / beta)
        rows.append(math.log(every - own + wanted))
    found = dro(SCORES, TARGET, torch.tensor(P, dtype=torch.float64), beta)
    assert found.item() == pytest.approx(sum(rows) / 2)


def test_the_gradient_of_dro_is_that_of_its_value() -> None:
    scores = SCORES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dro(x, TARGET, torch.tensor(P, dtype=torch.float64), 0.7), scores)


def test_dro_stays_finite_for_large_scores() -> None:
    assert dro(torch.full((2, 3), 60.0), TARGET, torch.ones(3), 1.0).isfinite()
