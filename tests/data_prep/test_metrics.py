"""Metrics of known ranks against cases computed by hand and against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score

from data_prep.metrics import CUTOFFS, METRICS, gains


def means(ranks: list[int]) -> dict[str, float]:
    return dict(zip(METRICS, gains(torch.tensor(ranks)).mean(0).tolist(), strict=True))


def test_metrics_of_known_ranks() -> None:
    found = means([1, 3, 21, 8])
    assert (found["hr@1"], found["hr@5"], found["hr@20"]) == (0.25, 0.5, 0.75)
    assert found["ndcg@5"] == pytest.approx((1 + 1 / math.log2(4)) / 4)
    assert found["ndcg@20"] == pytest.approx((1 + 1 / math.log2(4) + 1 / math.log2(9)) / 4)
    assert found["mrr@20"] == pytest.approx((1 + 1 / 3 + 1 / 8) / 4)
    assert found["mrr@1"] == 0.25


def test_metrics_equal_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    scores, target = random.normal(size=(200, 60)), random.integers(60, size=200)
    ranks = (scores >= scores[np.arange(200), target][:, None]).sum(1)
    found = means(ranks.tolist())
    relevance = np.eye(60)[target]
    for cutoff in CUTOFFS:
        hit_rate = top_k_accuracy_score(target, scores, k=cutoff, labels=range(60))
        assert found[f"hr@{cutoff}"] == pytest.approx(hit_rate)
        if cutoff > 1:
            assert found[f"ndcg@{cutoff}"] == pytest.approx(ndcg_score(relevance, scores, k=cutoff))
    whole = gains(torch.from_numpy(ranks).clamp(max=20))[:, METRICS.index("mrr@20")]
    in_list = torch.from_numpy(ranks) <= 20
    expected = label_ranking_average_precision_score(relevance[in_list], scores[in_list])
    assert whole[in_list].mean().item() == pytest.approx(expected)
