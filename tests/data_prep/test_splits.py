"""Split rules."""

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ConfigError, DataError
from data_prep.sequences import Rows
from data_prep.splits import (
    GATE,
    TEST,
    TRAIN,
    VALIDATION,
    by_timestamps,
    chronological,
    leave_one_out,
    set_gate_aside,
    split_rows,
)


def test_chronological_cuts_sorted_rows_8_1_1():
    timestamps = np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    assert chronological(timestamps).tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert np.bincount(chronological(np.arange(90_570.0))).tolist() == [72_456, 9_057, 9_057]


def test_chronological_ties_keep_row_order():
    assert chronological(np.zeros(10)).tolist() == [0] * 8 + [1, 2]


def test_cut_points_belong_to_the_later_split():
    assert by_timestamps(np.array([1.0, 9.9, 10, 15, 20, 21]), (10, 20)).tolist() == [0, 0, 1, 1, 2, 2]


def test_leave_one_out_per_user():
    target, last = np.array([1, 2, 3, 4, 6]), np.array([4, 4, 4, 4, 6])  # users of 5 and of 2 interactions
    assert leave_one_out(target, last).tolist() == [0, 0, 1, 2, 2]


def rows(count: int) -> Rows:
    return Rows(np.arange(1, count + 1), np.zeros(count, np.int64), np.full(count, count))


@pytest.mark.parametrize(
    ("rule", "count", "cut_points", "empty"),
    [
        ("chronological", 1, None, "train"),
        ("chronological", 4, None, "validation"),
        ("timestamps", 10, (20, 30), "validation"),
        ("timestamps", 10, (-5, 3), "train"),
        ("timestamps", 10, (3, 30), "test"),
        ("leave-one-out", 1, None, "train"),
        ("leave-one-out", 2, None, "train"),
    ],
)
def test_empty_split(rule, count, cut_points, empty):
    with pytest.raises(DataError, match=rf"split `{rule}` leaves {empty} empty \({count} rows"):
        split_rows(rule, rows(count), np.arange(float(count)), cut_points)


def test_no_rows_at_all():
    with pytest.raises(DataError, match="leaves train empty"):
        split_rows("chronological", rows(0), np.array([]), None)


@pytest.mark.parametrize("cut_points", [None, (2, 1), (2, 2), (float("nan"), 1)])
def test_cut_points_missing_or_out_of_order(cut_points):
    with pytest.raises(ConfigError, match="cut-points"):
        split_rows("timestamps", rows(5), np.arange(5.0), cut_points)


VALIDATED = np.array([TRAIN, VALIDATION, VALIDATION, TEST] * 500, dtype=np.int8)
USERS = np.repeat(np.arange(1000), 2)  # each has two rows, so every second one is validated


def ids(count: int) -> pa.Array:
    return pa.array([f"u{n}" for n in range(count)])


def test_the_gate_takes_whole_users_and_nothing_but_validation_rows() -> None:
    gate = set_gate_aside(VALIDATED, USERS, ids(1000), 0.2, seed=0)
    assert set(VALIDATED[gate == GATE]) == {VALIDATION}
    assert (gate[gate != GATE] == VALIDATED[gate != GATE]).all()
    assert not set(USERS[gate == GATE]) & set(USERS[gate == VALIDATION])
    assert 0.15 < (gate == GATE).sum() / (VALIDATED == VALIDATION).sum() < 0.25


def test_a_user_is_in_the_gate_whatever_data_comes_later() -> None:
    before = set(USERS[:1000][set_gate_aside(VALIDATED[:1000], USERS[:1000], ids(500), 0.2, seed=0) == GATE])
    after = set(USERS[set_gate_aside(VALIDATED, USERS, ids(1000), 0.2, seed=0) == GATE])
    assert before == {user for user in after if user < 500}
    assert before != set(USERS[set_gate_aside(VALIDATED, USERS, ids(1000), 0.2, seed=1) == GATE])


def test_without_a_share_or_with_one_user_nothing_is_set_aside() -> None:
    assert (set_gate_aside(VALIDATED, USERS, ids(1000), 0, seed=0) == VALIDATED).all()
    alone = np.zeros(len(VALIDATED), dtype=np.int64)
    assert (set_gate_aside(VALIDATED, alone, ids(1), 0.2, seed=0) == VALIDATED).all()


def test_of_two_users_one_is_set_aside_and_one_is_not() -> None:
    splits, users = np.full(4, VALIDATION, dtype=np.int8), np.array([0, 0, 1, 1])
    assert (set_gate_aside(splits, users, ids(2), 0.01, seed=0) == GATE).sum() == 2
    assert (set_gate_aside(splits, users, ids(2), 0.99, seed=0) == GATE).sum() == 2


def test_a_large_gate_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.splits.MOST_GATE_ROWS", 40)
    assert (set_gate_aside(VALIDATED, USERS, ids(1000), 0.2, seed=0) == GATE).sum() == 40
