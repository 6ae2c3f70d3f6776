from tests.tune.records import record
from tune.config import AshaConfig
from tune.halving import Rungs, rung_epochs, weak
from tune.journal import Record

CONFIG = AshaConfig(max_epochs=9, grace=1, reduction=3)


def bars(earlier: list[Record]) -> dict[int, float]:
    rungs = Rungs(CONFIG, "ndcg@20")
    for trial in earlier:
        rungs.learn(trial)
    return rungs.bars()


def stops(*ndcg: float, earlier: list[Record]) -> bool:
    return weak(record(9, *ndcg).history, bars(earlier), "ndcg@20")


def test_rungs_grow_by_the_reduction_and_end_before_the_last_epoch():
    assert rung_epochs(CONFIG) == [1, 3]
    assert rung_epochs(AshaConfig(max_epochs=30, grace=4, reduction=3)) == [4, 12]
    assert rung_epochs(AshaConfig(max_epochs=4, grace=4)) == []
    assert rung_epochs(AshaConfig(max_epochs=4, grace=1, reduction=1.2)) == [1, 2, 3, 4]


def test_of_three_at_a_rung_one_goes_on():
    earlier = [record(0, 0.1), record(1, 0.2)]
    assert stops(0.1, earlier=earlier)
    assert not stops(0.3, earlier=earlier)
    six = [record(number, 0.1 * number) for number in range(5)]
    assert not stops(0.35, earlier=six)
    assert stops(0.25, earlier=six)


def test_between_rungs_nothing_stops():
    earlier = [record(0, 0.9, 0.9, 0.9), record(1, 0.8, 0.8, 0.8)]
    assert not stops(0.1, 0.1, earlier=earlier)
    assert stops(0.1, 0.1, 0.1, earlier=earlier)


def test_the_best_evaluation_up_to_the_rung_counts():
    earlier = [record(0, 0.1, 0.5, 0.1, 0.9), record(1, 0.1, 0.1, 0.1)]
    assert not stops(0.6, 0.2, 0.2, earlier=earlier)
    assert stops(0.4, 0.2, 0.2, earlier=earlier)


def test_trials_that_did_not_come_so_far_or_failed_do_not_count():
    assert not stops(0.1, 0.1, 0.1, earlier=[record(0, 0.9), record(1)])
    assert not stops(0.1, earlier=[])


def test_an_equal_value_is_no_reason_to_stop():
    assert not stops(0.2, earlier=[record(0, 0.1), record(1, 0.2)])


def test_an_evaluation_that_skips_the_rung_is_compared_at_it():
    history = [at for at in record(1, 0.1, 0.1, 0.1, 0.1).history if at["epoch"] % 2 == 0]
    assert weak(history, bars([record(0, 0.9, 0.9, 0.9, 0.9)]), "ndcg@20")
