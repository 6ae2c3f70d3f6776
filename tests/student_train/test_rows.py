"""Slices of shards."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.errors import StaleInputError
from cluster.files import write_parquet
from cluster.storage import MANIFEST_FILE, read_manifest
from data_prep.schema import FAILURES, failure_file, label_file, sequence_files
from student_train.config import ModelConfig, TrainConfig
from student_train.rows import Rows, read_rows
from student_train.worker import load_data
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


def test_rows_that_failed_on_one_worker_only_are_counted_and_shared_out(
    dataset: Path, labels: Path, tmp_path: Path
) -> None:
    """Label shards of 70 rows lie across the data set's of 50; all failures are of what one of three workers reads."""
    copy, failed = tmp_path / "labels", range(ROWS["train"] // 3)
    shutil.copytree(labels, copy)
    table = pq.read_table(label_file(copy, "train", 0)).sort_by("row_id").slice(len(failed))
    for number, start in enumerate(range(0, len(table), 70)):
        write_parquet(table.slice(start, 70), label_file(copy, "train", number))
    errors = pa.table([failed, ["no answer"] * len(failed)], schema=FAILURES)
    write_parquet(errors, failure_file(copy, "train", 0))
    config = TrainConfig(dataset=dataset, labels=copy, model=ModelConfig(max_length=5))
    parts = [load_data(config, rank, 3) for rank in range(3)]
    assert {part.total_rows for part in parts} == {ROWS["train"] - len(failed)} == {sum(len(p.train) for p in parts)}
    assert max(len(part.train) for part in parts) - min(len(part.train) for part in parts) <= 1
    rows = [row_id for part in parts for row_id in part.train.row_id.tolist()]
    assert rows == list(range(len(failed), ROWS["train"]))
    for part in parts:
        assert part.train.teacher is not None
        assert part.train.teacher.items[:, 0].tolist() == part.train.target.tolist()


def test_batches_visit_every_row_before_any_twice() -> None:
    rows = Rows(torch.arange(10), torch.zeros(10, 1).long(), torch.arange(10))
    seen = torch.cat([b.row_id for b in rows.batches(4, 3, torch.Generator().manual_seed(0))])
    assert len(seen) == 12
    assert sorted(seen[:10].tolist()) == list(range(10))
