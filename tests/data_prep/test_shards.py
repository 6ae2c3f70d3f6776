"""Shard boundaries."""

import numpy as np
import pytest

from data_prep.shards import shard_starts


@pytest.mark.parametrize(
    ("users", "per_shard", "starts"),
    [
        ([0, 0, 0, 1, 2, 2], 1, [0, 3, 4]),
        ([0, 0, 0, 1, 2, 2], 2, [0, 3, 4]),
        ([0, 0, 0, 1, 2, 2], 3, [0, 3]),
        ([0, 0, 0, 1, 2, 2], 4, [0, 4]),
        ([0, 0, 0, 1, 2, 2], 6, [0]),
        ([5, 5, 5], 2, [0]),
    ],
)
def test_shards_start_with_a_user(users, per_shard, starts):
    assert shard_starts(np.array(users), per_shard).tolist() == starts
