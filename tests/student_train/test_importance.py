"""Importance weights against cases computed by hand."""

import math

import pytest
import torch

from data_prep.schema import ScoreKind
from data_prep.score_kind import ScoreScale
from student_train.config import DistillationConfig
from student_train.distillation.importance import confidence, consistency, importance, position_weights

SCORES = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
TEACHER = torch.tensor([[0, 4], [4, 0]])


def test_position_weights_fall_by_e_per_rank_and_sum_to_one() -> None:
    weights = position_weights(3, beta=1.0)
    first = 1 / (1 + math.exp(-1) + math.exp(-2))
    assert weights.tolist() == pytest.approx([first, first * math.exp(-1), first * math.exp(-2)])


def test_larger_beta_flattens_position_weights() -> None:
    assert position_weights(3, beta=100.0).tolist() == pytest.approx([1 / 3] * 3, abs=5e-3)


def test_consistency_marks_candidates_in_the_students_own_top_k() -> None:
    assert consistency(SCORES, TEACHER).tolist() == [[1.0, 0.0], [1.0, 0.0]]


def over_all(values: list[float], kind: ScoreKind) -> torch.Tensor:
    scores = torch.tensor(values)
    return confidence(scores, kind, ScoreScale.of(kind, lambda: [scores]))


def test_confidence_falls_with_distance_and_keeps_its_level_per_row() -> None:
    expected = torch.tensor([math.exp(1), math.exp(-1)])
    assert torch.allclose(over_all([0.0, 2.0], "distance"), expected / expected.mean())


def test_confidence_of_a_part_of_the_rows_is_that_part_of_the_whole() -> None:
    scores = torch.tensor([0.3, 1.0, 2.5, 0.1])
    scale = ScoreScale.of("distance", lambda: [scores])
    assert torch.equal(confidence(scores[1:3], "distance", scale), over_all(scores.tolist(), "distance")[1:3])


def test_a_scale_does_not_depend_on_the_parts_in_which_scores_are_read() -> None:
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3 + 1000
    whole = ScoreScale.of("distance", lambda: [scores])
    parts = ScoreScale.of("distance", lambda: scores.split(77))
    assert parts == pytest.approx(whole, rel=1e-9)
    assert whole.deviation == pytest.approx(scores.double().std(correction=0).item(), rel=1e-9)
    assert confidence(scores, "distance", parts).mean().item() == pytest.approx(1, rel=1e-5)


def test_confidence_reads_a_cosine_the_other_way_round() -> None:
    assert torch.allclose(over_all([0.9, 0.1, 0.5], "cosine"), over_all([-0.9, -0.1, -0.5], "distance"))


def test_confidence_does_not_depend_on_the_teachers_scale() -> None:
    assert torch.allclose(
        over_all([1.0, 2.0, 4.0], "distance"), over_all([1007.0, 2007.0, 4007.0], "distance"), atol=1e-5
    )


def test_confidence_of_an_undecided_teacher_is_one_everywhere() -> None:
    assert over_all([3.0] * 4, "distance").tolist() == [1.0] * 4


def test_importance_is_the_weighted_sum_and_not_normalised_over_the_list() -> None:
    config = DistillationConfig(gamma_position=0.3, gamma_confidence=0.5, gamma_consistency=0.1)
    found = importance(SCORES, TEACHER, torch.tensor([1.5, 0.5]), config)
    first = 1 / (1 + math.exp(-1))
    position = [first, 1 - first]
    expected = [
        [0.3 * position[0] + 0.5 * 1.5 + 0.1, 0.3 * position[1] + 0.5 * 1.5],
        [0.3 * position[0] + 0.5 * 0.5 + 0.1, 0.3 * position[1] + 0.5 * 0.5],
    ]
    assert torch.allclose(found, torch.tensor(expected))


@pytest.mark.parametrize("name", ["gamma_position", "gamma_confidence", "gamma_consistency"])
def test_each_importance_can_be_switched_off(name: str) -> None:
    weights = {"gamma_position": 1.0, "gamma_confidence": 1.0, "gamma_consistency": 1.0}
    row = torch.tensor([2.0, 0.5])
    full = importance(SCORES, TEACHER, row, DistillationConfig(**weights))
    without = importance(SCORES, TEACHER, row, DistillationConfig(**(weights | {name: 0.0})))
    alone = importance(SCORES, TEACHER, row, DistillationConfig(**(dict.fromkeys(weights, 0.0) | {name: 1.0})))
    assert torch.allclose(full, without + alone)
    assert alone.abs().sum() > 0


def test_no_gradient_flows_through_the_weights() -> None:
    scores = SCORES.clone().requires_grad_()
    assert not importance(scores, TEACHER, torch.ones(2), DistillationConfig()).requires_grad
