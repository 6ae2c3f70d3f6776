import numpy as np
import pytest

from teacher_train.packing import pack


def rows(lengths):
    return [{"input_ids": np.full(length, at), "labels": np.full(length, at)} for at, length in enumerate(lengths)]


@pytest.fixture(scope="module")
def many():
    return rows(np.random.default_rng(0).integers(1, 101, 500).tolist())


def size(group):
    return sum(len(example["input_ids"]) for example in group)


def test_every_row_is_packed_once_and_groups_are_nearly_full(many):
    groups = pack(many, 100)
    assert sorted(example["input_ids"][0] for group in groups for example in group) == list(range(500))
    assert max(map(size, groups)) <= 100
    assert size(many) / (len(groups) * 100) > 0.9


def test_a_row_as_long_as_the_limit_stands_alone():
    assert sorted(map(size, pack(rows([10, 10, 4, 6, 1]), 10))) == [1, 10, 10, 10]
