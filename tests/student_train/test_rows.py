"""Slices of shards."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from cluster.errors import StaleInputError
from student_train.rows import Rows, read_rows
from tests.student_train.conftest import N_ITEMS, ROWS


def test_histories_are_padded_on_the_left_and_cut_to_the_newest(dataset: Path) -> None:
    rows = read_rows(dataset, "validation", 4, N_ITEMS)
    raw = pq.read_table(dataset / "sequences" / "validation")
    for found, history in zip(rows.history.tolist(), raw["history"].to_pylist(), strict=True):
        newest = history[-4:]
        assert found == [N_ITEMS] * (4 - len(newest)) + newest
    assert rows.target.tolist() == raw["target"].to_pylist()


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_workers_share_the_rows_evenly_without_overlap(dataset: Path, world_size: int) -> None:
    slices = [read_rows(dataset, "train", 5, N_ITEMS, rank, world_size) for rank in range(world_size)]
    sizes = [len(rows) for rows in slices]
    assert max(sizes) - min(sizes) <= 1
    together = torch.cat([rows.row_id for rows in slices])
    assert together.tolist() == list(range(ROWS["train"]))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("failed", [range(ROWS["train"] // 2), [3, 1, ROWS["train"] - 1]])
def test_what_is_left_of_the_rows_is_shared_out_evenly(dataset: Path, world_size: int, failed: Sequence[int]) -> None:
    without = torch.tensor(list(failed))
    slices = [read_rows(dataset, "train", 5, N_ITEMS, rank, world_size, without) for rank in range(world_size)]
    sizes = [len(rows) for rows in slices]
    assert max(sizes) - min(sizes) <= 1
    together = torch.cat([rows.row_id for rows in slices])
    assert together.tolist() == sorted(set(range(ROWS["train"])) - set(failed))


def test_more_workers_than_rows_are_refused(dataset: Path) -> None:
    with pytest.raises(StaleInputError, match=r"60 rows for 61 workers"):
        read_rows(dataset, "test", 5, N_ITEMS, 0, 61)


def test_batches_visit_every_row_before_any_twice() -> None:
    rows = Rows(torch.arange(10), torch.zeros(10, 1).long(), torch.arange(10))
    seen = torch.cat([b.row_id for b in rows.batches(4, 3, torch.Generator().manual_seed(0))])
    assert len(seen) == 12
    assert sorted(seen[:10].tolist()) == list(range(10))
