import math

import pytest
import torch

from teacher_infer.labels import NOT_FOUND, Score
from teacher_infer.teachers import whitened


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


def test_whitening_evens_out_the_principal_components():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(200, 6, generator=generator) * torch.tensor([9.0, 5, 3, 1, 0.5, 0.1]) + 7
    for power, expected in ((0.0, torch.tensor([9.0, 5, 3, 1, 0.5, 0.1])), (1.0, torch.ones(6))):
        spread = whitened(embeddings, power).std(0)
        assert torch.allclose(spread / spread[0], expected / expected[0], rtol=0.2)
    centred = embeddings - embeddings.mean(0)
    turned = whitened(embeddings, 0.0)
    assert torch.allclose(turned @ turned.T, centred @ centred.T, atol=1e-2)


def test_whitening_leaves_directions_empty_that_the_data_do_not_have():
    flat = torch.randn(50, 2) @ torch.randn(2, 6)
    white = whitened(flat, 1.0)
    assert (white.std(0) > 1e-3).sum() == 2
    assert white.isfinite().all()
    assert white.is_contiguous()
