"""Counted transitions between items, by hand."""

import pytest
import torch

from student_train.rows import Rows
from student_train.transitions import Transitions

N = 4


def rows(*pairs: tuple[list[int], int]) -> Rows:
    histories = torch.tensor([history for history, _ in pairs])
    return Rows(torch.arange(len(pairs)), histories, torch.tensor([target for _, target in pairs]))


def test_scores_are_shares_of_what_followed_and_half_as_much_a_step_further_back() -> None:
    counted = rows(([N, 0], 1), ([3, 0], 1), ([3, 0], 2), ([N, N], 3), ([0, 1], 2))
    scores = Transitions(counted, N)(torch.tensor([[1, 0], [N, 1], [N, N]]))
    popularity = torch.tensor([0.0, 2 / 5, 2 / 5, 1 / 5])
    after_0, after_1 = torch.tensor([0.0, 2 / 4, 1 / 4, 0.0]), torch.tensor([0.0, 0.0, 1 / 2, 0.0])
    torch.testing.assert_close(scores[0], popularity + after_0 + 0.5 * after_1)
    torch.testing.assert_close(scores[1], popularity + after_1)
    torch.testing.assert_close(scores[2], popularity)


def test_an_item_twice_in_a_history_counts_twice() -> None:
    scores = Transitions(rows(([N, 0], 1)), N)(torch.tensor([[0, 0]]))
    assert scores[0, 1] == pytest.approx(1 + 0.5 + 0.25)
