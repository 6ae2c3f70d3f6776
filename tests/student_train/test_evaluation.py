"""Full ranking against brute force and hand-computed gains."""

import math

import pytest
import torch
from torch import nn

from student_train.evaluation import METRICS, evaluate, metric_means, metric_sums, target_ranks
from student_train.rows import Rows


def test_ranks_equal_those_of_a_full_sort() -> None:
    scores = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    target = torch.arange(50) % 40
    order = scores.argsort(dim=1, descending=True)
    expected = (order == target[:, None]).nonzero()[:, 1] + 1
    assert target_ranks(scores, target).tolist() == expected.tolist()


def test_ties_count_against_the_student() -> None:
    assert target_ranks(torch.zeros(2, 7), torch.tensor([0, 6])).tolist() == [7, 7]


def test_metrics_of_known_ranks() -> None:
    sums = metric_sums(torch.tensor([1, 3, 21, 8]))
    found = metric_means(torch.cat([sums, torch.tensor([4.0])]))
    assert found["hr@1"] == 0.25
    assert found["hr@5"] == 0.5
    assert found["hr@20"] == 0.75
    assert found["ndcg@5"] == pytest.approx((1 + 1 / math.log2(4)) / 4)
    assert found["ndcg@20"] == pytest.approx((1 + 1 / math.log2(4) + 1 / math.log2(9)) / 4)


class Echo(nn.Module):
    """Scores the item after the newest one highest."""

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(history[:, -1] + 1, 3000).float()


def test_evaluation_covers_all_blocks_and_restores_nothing_to_training() -> None:
    newest = torch.arange(2500)
    student = Echo().train()
    sums = evaluate(student, Rows(newest, newest[:, None], newest + 1), torch.device("cpu"))
    assert sums[-1] == 2500
    assert metric_means(sums) == dict.fromkeys(METRICS, 1.0)
    assert not student.training


def test_scores_that_are_not_finite_are_refused() -> None:
    class Broken(nn.Module):
        def forward(self, history: torch.Tensor) -> torch.Tensor:
            return torch.full((len(history), 5), torch.nan)

    with pytest.raises(FloatingPointError):
        evaluate(Broken(), Rows(torch.arange(2), torch.zeros(2, 1).long(), torch.zeros(2).long()), torch.device("cpu"))
