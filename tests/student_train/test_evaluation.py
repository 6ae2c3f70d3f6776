"""Full ranking against brute force."""

import pytest
import torch
from torch import nn

from cluster.errors import ConfigError, UserError
from data_prep.metrics import METRICS, gains
from student_train.evaluation import Metrics, evaluate, metric_means, protocol, scored, target_ranks
from student_train.rows import Rows

CPU = torch.device("cpu")


def test_ranks_equal_those_of_a_full_sort() -> None:
    scores = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    target = torch.arange(50) % 40
    order = scores.argsort(dim=1, descending=True)
    expected = (order == target[:, None]).nonzero()[:, 1] + 1
    assert target_ranks(scores, target).tolist() == expected.tolist()


def test_ties_count_against_the_student() -> None:
    assert target_ranks(torch.zeros(2, 7), torch.tensor([0, 6])).tolist() == [7, 7]


class Echo(nn.Module):
    """Scores the item after the newest one highest."""

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(history[:, -1] + 1, 3000).float()


def test_evaluation_covers_all_blocks_and_restores_nothing_to_training() -> None:
    newest = torch.arange(2500)
    student = Echo().train()
    counts = evaluate(student, Rows(newest, newest[:, None], newest + 1), CPU)
    assert counts.sum() == counts[1] == 2500
    assert metric_means(counts) == dict.fromkeys(METRICS, 1.0)
    assert not student.training


class Fixed(nn.Module):
    """The same scores for every history: item 0 first."""

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        return -torch.arange(5.0).expand(len(history), 5)


def test_the_history_filter_lifts_what_stands_behind_it_and_spares_the_target() -> None:
    rows = Rows(torch.arange(3), torch.tensor([[0, 1], [5, 1], [5, 2]]), torch.tensor([2, 2, 2]))
    ranks = [target_ranks(scores, block.target).tolist() for block, scores in scored(Fixed(), rows, CPU, True)]
    assert ranks == [[1, 2, 3]]
    unfiltered = [target_ranks(scores, block.target).tolist() for block, scores in scored(Fixed(), rows, CPU)]
    assert unfiltered == [[3, 3, 3]]


def test_the_protocol_says_how_rows_were_split_and_whether_history_is_filtered() -> None:
    prepared = {"split": "timestamps", "rows": "every"}
    assert "every position, timestamps split, history items not filtered" in protocol(False, prepared)
    assert "split as given, history items left out" in protocol(True, {})


def test_scores_that_are_not_finite_are_refused() -> None:
    class Broken(nn.Module):
        def forward(self, history: torch.Tensor) -> torch.Tensor:
            return torch.full((len(history), 5), torch.nan)

    with pytest.raises(UserError, match="not finite"):
        evaluate(Broken(), Rows(torch.arange(2), torch.zeros(2, 1).long(), torch.zeros(2).long()), CPU)


def within_three(rank_B: torch.Tensor) -> torch.Tensor:
    return rank_B <= 3


def test_a_metric_of_the_users_own_is_summed_beside_the_others() -> None:
    metrics = Metrics([f"{__name__}:within_three"])
    assert metrics.names == (*METRICS, "within_three")
    values = metrics(torch.tensor([1, 3, 4]))
    assert values[:, -1].tolist() == [1.0, 1.0, 0.0]
    assert values[:, : len(METRICS)].equal(gains(torch.tensor([1, 3, 4])))
    with pytest.raises(ConfigError, match="`nowhere:metric` cannot be imported"):
        Metrics(["nowhere:metric"])
