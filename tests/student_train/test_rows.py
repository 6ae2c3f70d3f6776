"""Slices of shards."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from cluster.errors import StaleInputError
from cluster.storage import MANIFEST_FILE, read_manifest
from data_prep.schema import sequence_files
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


def test_no_footer_is_opened_to_count(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    files = sequence_files(copy, "train")
    manifest = read_manifest(copy)
    manifest.shards = {"train": [50, 50, 50, 50, 40]}
    (copy / MANIFEST_FILE).write_text(manifest.model_dump_json())
    for file in files[1:]:
        file.write_text("no Parquet")
    rows = read_rows(copy, "train", 5, N_ITEMS, 0, 6)  # the first 40 rows, of the first shard
    assert rows.row_id.tolist() == list(range(40))
    files[-1].unlink()
    with pytest.raises(StaleInputError, match="holds 4 shards of the train split, not 5"):
        read_rows(copy, "train", 5, N_ITEMS, 0, 6)


def test_batches_visit_every_row_before_any_twice() -> None:
    rows = Rows(torch.arange(10), torch.zeros(10, 1).long(), torch.arange(10))
    seen = torch.cat([b.row_id for b in rows.batches(4, 3, torch.Generator().manual_seed(0))])
    assert len(seen) == 12
    assert sorted(seen[:10].tolist()) == list(range(10))
