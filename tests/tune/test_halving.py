import pytest

from tests.tune.records import record
from tune.config import AshaConfig
from tune.halving import rungs, stops

CONFIG = AshaConfig(max_epochs=9, grace=1, reduction=3)


def weak(*ndcg: float, earlier: list) -> bool:
    return stops(CONFIG, "ndcg@20", record(9, *ndcg).history, earlier)


def test_rungs_grow_by_the_reduction_and_end_before_the_last_epoch():
    assert rungs(CONFIG) == [1, 3]
    assert rungs(AshaConfig(max_epochs=30, grace=4, reduction=3)) == [4, 12]
    assert rungs(AshaConfig(max_epochs=4, grace=4)) == []


def test_a_trial_outside_the_best_third_stops_at_a_rung():
    earlier = [record(0, 0.1), record(1, 0.2)]
    assert weak(0.1, earlier=earlier)
    assert not weak(0.3, earlier=earlier)


def test_between_rungs_nothing_stops():
    earlier = [record(0, 0.9, 0.9, 0.9), record(1, 0.8, 0.8, 0.8)]
    assert not weak(0.1, 0.1, earlier=earlier)
    assert weak(0.1, 0.1, 0.1, earlier=earlier)


def test_the_best_evaluation_up_to_the_rung_counts():
    earlier = [record(0, 0.1, 0.5, 0.1, 0.9), record(1, 0.1, 0.1, 0.1)]
    assert not weak(0.6, 0.2, 0.2, earlier=earlier)
    assert weak(0.4, 0.2, 0.2, earlier=earlier)


def test_trials_that_did_not_come_so_far_or_failed_do_not_count():
    assert not weak(0.1, 0.1, 0.1, earlier=[record(0, 0.9), record(1)])
    assert not weak(0.1, earlier=[])


def test_an_evaluation_that_skips_the_rung_is_compared_at_it():
    history = [at for at in record(0, 0.1, 0.1, 0.1, 0.1).history if at["epoch"] % 2 == 0]
    assert stops(CONFIG, "ndcg@20", history[:2], [record(1, 0.9, 0.9, 0.9, 0.9), record(2, 0.8, 0.8, 0.8, 0.8)])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_order_of_arrival_does_not_matter(order):
    earlier = [record(number, 0.1 * (number + 1)) for number in order]
    assert weak(0.2, earlier=earlier)
    assert not weak(0.35, earlier=earlier)
