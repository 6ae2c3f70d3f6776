import math

import pytest
import torch

from teacher_infer.labels import NOT_FOUND, Score


def test_metrics_of_known_ranks():
    score = Score(ranks=[torch.tensor([1, 4]), torch.tensor([10, NOT_FOUND])])
    metrics = score.metrics(20)
    assert metrics["hr@1"] == 0.25
    assert metrics["hr@5"] == 0.5
    assert metrics["hr@10"] == metrics["hr@20"] == 0.75
    assert metrics["ndcg@5"] == pytest.approx((1 + 1 / math.log2(5)) / 4)
    assert metrics["ndcg@20"] == pytest.approx((1 + 1 / math.log2(5) + 1 / math.log2(11)) / 4)


def test_cutoffs_beyond_the_list_are_left_out():
    assert set(Score(ranks=[torch.tensor([1])]).metrics(10)) == {
        f"{m}@{k}" for m in ("hr", "ndcg", "mrr") for k in (1, 5, 10)
    }


def test_a_split_without_rows_has_no_metrics():
    assert Score(ranks=[torch.tensor([], dtype=torch.long)]).metrics(20) == {}
