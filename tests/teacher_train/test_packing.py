import numpy as np
import pytest

from teacher_train.examples import Example
from teacher_train.packing import joined, pack, split_to


def rows(lengths):
    return [Example([at] * length, [at] * length, (length,)) for at, length in enumerate(lengths)]


@pytest.fixture(scope="module")
def many():
    return rows(np.random.default_rng(0).integers(1, 101, 500).tolist())


def size(group):
    return sum(len(example.tokens) for example in group)


def seen(groups):
    return sorted(example.tokens[0] for group in groups for example in group)


def test_every_row_is_packed_once_and_groups_are_nearly_full(many):
    groups = pack(many, 100)
    assert seen(groups) == list(range(500))
    assert max(map(size, groups)) <= 100
    assert size(many) / (len(groups) * 100) > 0.9


def test_a_row_as_long_as_the_limit_stands_alone():
    assert sorted(map(size, pack(rows([10, 10, 4, 6, 1]), 10))) == [1, 10, 10, 10]


def test_groups_can_be_split_so_that_workers_have_as_many(many):
    groups = pack(many, 100)
    for count in (len(groups), len(groups) + 7, len(many)):
        again = split_to(groups, count)
        assert len(again) == count
        assert all(again)
        assert seen(again) == list(range(500))


def test_joined_rows_keep_their_lengths():
    example = joined(rows([2, 1, 3]))
    assert example == Example([0, 0, 1, 2, 2, 2], [0, 0, 1, 2, 2, 2], (2, 1, 3))
