from tests.tune.records import record
from tune.config import AshaConfig
from tune.halving import Rungs, rung_epochs
from tune.journal import Record

CONFIG = AshaConfig(max_epochs=9, grace=1, reduction=3)


def weak(*ndcg: float, earlier: list[Record], known: int | None = None) -> bool:
    rungs = Rungs(CONFIG, "ndcg@20")
    for trial in earlier:
        rungs.learn(trial)
    return rungs.weak(record(9, *ndcg).history, len(earlier) if known is None else known)


def test_rungs_grow_by_the_reduction_and_end_before_the_last_epoch():
    assert rung_epochs(CONFIG) == [1, 3]
    assert rung_epochs(AshaConfig(max_epochs=30, grace=4, reduction=3)) == [4, 12]
    assert rung_epochs(AshaConfig(max_epochs=4, grace=4)) == []


def test_of_three_at_a_rung_one_goes_on():
    earlier = [record(0, 0.1), record(1, 0.2)]
    assert weak(0.1, earlier=earlier)
    assert not weak(0.3, earlier=earlier)
    six = [record(number, 0.1 * number) for number in range(5)]
    assert not weak(0.35, earlier=six)
    assert weak(0.25, earlier=six)


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


def test_trials_that_ended_too_late_to_be_known_do_not_count():
    earlier = [record(0, 0.1), record(1, 0.9), record(2, 0.9)]
    assert not weak(0.2, earlier=earlier, known=1)
    assert weak(0.2, earlier=earlier, known=2)


def test_an_evaluation_that_skips_the_rung_is_compared_at_it():
    rungs = Rungs(CONFIG, "ndcg@20")
    rungs.learn(record(0, 0.9, 0.9, 0.9, 0.9))
    history = [at for at in record(1, 0.1, 0.1, 0.1, 0.1).history if at["epoch"] % 2 == 0]
    assert rungs.weak(history, 1)
