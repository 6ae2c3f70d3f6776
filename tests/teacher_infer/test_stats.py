import math

import pytest
import torch

from data_prep.metrics import METRICS
from teacher_infer.stats import Stats, list_gains

ITEMS = torch.tensor([[3, 1, 2], [0, 4, 3], [1, 2, 3]])


def test_metrics_of_known_lists():
    gains = list_gains(ITEMS, torch.tensor([3, 3, 9]))
    metrics = Stats(rows=3, gains=gains).metrics(20)
    assert metrics["hr@1"] == pytest.approx(1 / 3)
    assert metrics["hr@5"] == metrics["hr@20"] == pytest.approx(2 / 3)
    assert metrics["ndcg@5"] == pytest.approx((1 + 1 / math.log2(4)) / 3)
    assert metrics["mrr@10"] == pytest.approx((1 + 1 / 3) / 3)


def test_cutoffs_beyond_the_list_are_left_out():
    names = {f"{m}@{k}" for m in ("hr", "ndcg", "mrr") for k in (1, 5, 10)}
    assert set(Stats(rows=1, gains=[0.0] * len(METRICS)).metrics(10)) == names


def test_no_rows_no_metrics():
    assert Stats().metrics(20) == {}


def test_tallies_add_up():
    one = Stats(rows=2, prompts=1, seconds=0.5, gains=list_gains(ITEMS[:2], torch.tensor([3, 3])))
    two = Stats(rows=1, failed=1, new_tokens=7, gains=list_gains(ITEMS[2:], torch.tensor([2])))
    total = Stats.total([one, two])
    assert (total.rows, total.failed, total.prompts, total.new_tokens, total.seconds) == (3, 1, 1, 7, 0.5)
    assert total.gains == pytest.approx(list_gains(ITEMS, torch.tensor([3, 3, 2])))
