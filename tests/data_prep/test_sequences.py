"""Rows of histories and targets."""

import numpy as np
import pyarrow as pa
import pytest

from data_prep.log import Log
from data_prep.schema import SEQUENCES
from data_prep.sequences import select_rows, sequence_table


def make_log(*lengths: int) -> Log:
    """Users u0, u1 … of these lengths; items count up through the whole log; timestamp = 100 + item."""
    count = sum(lengths)
    return Log(
        user=np.repeat(np.arange(len(lengths)), lengths),
        item=np.arange(count),
        timestamp=100.0 + np.arange(count),
        user_ids=pa.array([f"u{index}" for index in range(len(lengths))]),
    )


def test_every_position_with_a_history():
    rows = select_rows(make_log(3, 2), "every")
    assert rows.target.tolist() == [1, 2, 4]
    assert rows.position.tolist() == [1, 2, 1]
    assert rows.last.tolist() == [2, 2, 4]


@pytest.mark.parametrize(
    ("length", "positions"), [(2, [1]), (9, [8]), (10, [9]), (11, [10]), (13, [10, 11, 12]), (1, [])]
)
def test_bigrec_rule(length, positions):
    rows = select_rows(make_log(2, length, 2), "bigrec")
    assert rows.position[1:-1].tolist() == positions


def test_table():
    log = make_log(4, 3)
    table = sequence_table(log, select_rows(log, "every"), np.array([1, 2, 4]), max_history=2)
    assert table.schema == SEQUENCES
    assert table.to_pylist() == [
        {"row_id": 1, "user_id": "u0", "position": 2, "history": [0, 1], "target": 2, "timestamp": 102.0},
        {"row_id": 2, "user_id": "u0", "position": 3, "history": [1, 2], "target": 3, "timestamp": 103.0},
        {"row_id": 4, "user_id": "u1", "position": 2, "history": [4, 5], "target": 6, "timestamp": 106.0},
    ]


def test_empty_table():
    log = make_log(2)
    assert sequence_table(log, select_rows(log, "every"), np.array([], np.int64), 5).num_rows == 0
