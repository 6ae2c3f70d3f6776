"""Each response-based strategy against a case computed by hand, and the two feature-based ones."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from student_train.config import DistillationConfig, LossConfig
from student_train.distillation import DistillationBatch, response_based
from student_train.distillation.baselines.hint import Hint
from student_train.distillation.baselines.htd import HTD
from student_train.distillation.baselines.unkd import STRATA, _strata
from student_train.losses import student_loss
from student_train.rows import TeacherLabels

SCORES = [2.0, 1.0, 0.0, -1.0]
"""The student's logits of the one row: it ranks the items 0, 1, 2, 3."""
LIST = [2, 0]
"""The teacher's two items: the student has the first two ranks too low, the second one too high."""
POPULARITY = [0.4, 0.3, 0.2, 0.1]


def distillation_batch(loss: str = "softmax", **settings: Any) -> DistillationBatch:  # any field of the config
    items = torch.tensor([LIST])
    taught = TeacherLabels(items, torch.tensor([[1.0, 0.5]]), torch.tensor([[0.5, 1.0]]), torch.ones(1))
    return DistillationBatch(
        scores_BN=torch.tensor([SCORES]),
        target_B=torch.tensor([1]),
        history_BL=torch.tensor([[0]]),
        teacher=taught,
        drawn_BM=torch.tensor([[3]]),
        popularity_N=torch.tensor(POPULARITY),
        propensity_N=torch.ones(4),
        dro_weight=0.0,
        dro_beta=1.0,
        config=DistillationConfig(top_k=2, **settings),
        student_loss=student_loss(LossConfig(name=loss)),
        generator=torch.Generator(),
    )


def taught(strategy: str, drawn: list[int] | None = None, **settings: Any) -> float:
    """The strategy's loss; ``drawn`` are the items off the list."""
    made = distillation_batch(**settings)
    if drawn is not None:
        made.unlisted = lambda count: torch.tensor([drawn[:count]])  # type: ignore[method-assign]
    return loss_of(strategy, made)


def loss_of(strategy: str, made: DistillationBatch) -> float:
    found = response_based(strategy)
    assert found
    return found(made).item()


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


def log_softmax(index: int) -> float:
    return SCORES[index] - math.log(sum(map(math.exp, SCORES)))


def test_soft_is_the_cross_entropy_with_the_teachers_softmax_over_its_list() -> None:
    mass = [math.exp(1.0 / 0.5), math.exp(0.5 / 0.5)]
    expected = -(mass[0] * log_softmax(2) + mass[1] * log_softmax(0)) / sum(mass)
    assert taught("soft", temperature=0.5) == pytest.approx(expected)


def test_soft_weighs_less_beside_a_loss_of_few_items() -> None:
    assert taught("soft", loss="bce") == pytest.approx(taught("soft") / 24)
    assert taught("soft", loss="sampled_softmax") == pytest.approx(taught("soft"))


def test_soft_weighs_rows_by_the_ranks_of_the_true_item() -> None:
    # The student ranks the true item 1 second; the teacher has it off its list of two, so third.
    weight = 2 * math.log(3) / (math.log(3) + math.log(4))
    assert taught("soft", weigh_rows=True) == pytest.approx(weight * taught("soft"))


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_dllm2rec_weighs_the_log_likelihood_of_the_students_own_loss(loss: str) -> None:
    log_likelihood = log_softmax if loss == "softmax" else lambda index: log_sigmoid(SCORES[index])
    first = 1 / (1 + math.exp(-1))
    # Item 0 alone is in the student's own top two; the confidence is 1.
    weights = [0.3 * first + 0.5, 0.3 * (1 - first) + 0.5 + 0.1]
    expected = -sum(w * log_likelihood(index) for w, index in zip(weights, LIST, strict=True))
    assert taught("dllm2rec", loss=loss) == pytest.approx(expected)


def test_rd_weighs_only_what_the_student_ranks_too_low() -> None:
    # Item 2 is two ranks behind, item 0 one ahead: after normalisation the former has all the weight.
    assert taught("rd") == pytest.approx(-log_sigmoid(0.0))


def test_cd_gives_soft_targets_by_rank_and_zero_to_the_rest() -> None:
    targets = [1 / (1 + math.exp(0)), 1 / (1 + math.exp(2 / 2))]
    listed = [-(t * log_sigmoid(s) + (1 - t) * log_sigmoid(-s)) for t, s in zip(targets, [0.0, 2.0], strict=True)]
    rest = [-log_sigmoid(-1.0), -log_sigmoid(1.0)]
    assert taught("cd", drawn=[1, 3]) == pytest.approx(sum(listed + rest) / 4)


def test_rrd_is_the_likelihood_of_the_order_of_the_list_above_the_rest() -> None:
    rest = math.exp(1.0) + math.exp(-1.0)
    first = math.exp(0.0) / (math.exp(0.0) + math.exp(2.0) + rest)
    second = math.exp(2.0) / (math.exp(2.0) + rest)
    assert taught("rrd", drawn=[1, 3]) == pytest.approx(-(math.log(first) + math.log(second)) / 2)


def test_dcd_lifts_what_is_ranked_too_low_above_what_is_ranked_too_high() -> None:
    # Of the student's top two, item 1 is off the list; item 3 is drawn; item 2 is two ranks behind.
    rivals = math.exp(1.0) + math.exp(-1.0)
    likelihood = math.log(math.exp(0.0) / (math.exp(0.0) + rivals))
    assert taught("dcd", drawn=[3]) == pytest.approx(-math.tanh(0.2) * likelihood / 2)


def test_unkd_compares_inside_a_stratum_only() -> None:
    # Each of the four items is a stratum of its own here, so that no pair is left.
    made = distillation_batch()
    made.popularity_N = torch.full((4,), 0.25)
    assert loss_of("unkd", made) == 0.0
    # All in one stratum: pairs of a listed item with the unlisted items 1 and 3.
    made.popularity_N = torch.tensor([1e-9] * 4)
    pairs = {(k, j): -log_sigmoid(SCORES[k] - SCORES[j]) for k in LIST for j in (1, 3)}
    found = torch.tensor([loss_of("unkd", made) for _ in range(4000)]).mean().item()
    # A drawn item is on the list half of the time and counts nothing then.
    assert found == pytest.approx(sum(pairs.values()) / len(pairs) / 2, rel=0.05)


def test_strata_hold_the_same_share_of_the_targets() -> None:
    popularity = torch.tensor([0.25, 0.1, 0.05, 0.1, 0.25, 0.25])
    stratum, members, first, size = _strata(popularity)
    assert [popularity[stratum == s].sum().item() for s in range(STRATA)] == pytest.approx([0.25] * STRATA)
    for s in range(STRATA):
        assert set(members[first[s] : first[s] + size[s]].tolist()) == set((stratum == s).nonzero()[:, 0].tolist())


def optimum(module: torch.nn.Module, embedded: Tensor) -> float:
    """The loss that is left after the module has learned to match ``embedded``."""
    optimizer, items = torch.optim.Adam(module.parameters(), 0.03), torch.arange(len(embedded))
    torch.manual_seed(0)
    for _ in range(300):
        optimizer.zero_grad()
        loss = module(items, embedded)
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("feature_loss", [Hint, HTD])
def test_embeddings_that_hold_the_teachers_match_and_random_ones_do_not(feature_loss: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    teacher = torch.randn(60, 4)
    centred = teacher - teacher.mean(0)
    holding, random = optimum(feature_loss(teacher, 4), centred), optimum(feature_loss(teacher, 4), torch.randn(60, 4))
    assert holding < 0.2 * random


def test_hint_is_the_squared_error_of_the_regressed_embedding() -> None:
    teacher = torch.tensor([[3.0, 0.0], [-1.0, 0.0]])
    hint = Hint(teacher, 2)
    torch.nn.init.zeros_(hint.regressor.weight)
    torch.nn.init.zeros_(hint.regressor.bias)
    # Centred and scaled to a mean norm of one the teacher's embeddings are (1, 0) and (−1, 0).
    assert hint(torch.tensor([0, 1]), torch.randn(2, 2)).item() == pytest.approx(1.0)
