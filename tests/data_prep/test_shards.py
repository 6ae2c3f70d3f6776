"""Shard boundaries."""

import numpy as np
import pyarrow as pa
import pytest

from cluster.files import parquet_file, write_parquet
from data_prep.reading import read_part
from data_prep.schema import sequence_files, shard_name
from data_prep.shards import ROWS_PER_GROUP, shard_starts, write_shards

COLUMN = pa.schema([pa.field("row_id", pa.int64())])


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


def test_shards_stand_in_the_order_of_their_numbers(tmp_path):
    folder = tmp_path / "sequences" / "train"
    folder.mkdir(parents=True)
    for name in ("part-99999", "part-100000", "part-00000007", "part-notes"):
        (folder / f"{name}.parquet").touch()
    assert [file.stem for file in sequence_files(tmp_path, "train")] == ["part-00000007", "part-99999", "part-100000"]
    assert shard_name(100_000) == "part-00100000.parquet"


@pytest.fixture
def shard(tmp_path):
    """Row groups of 3, 3 and 2 rows."""
    table = pa.table({"row_id": range(8)}, schema=COLUMN)
    write_parquet(table, tmp_path / "part.parquet", row_group_size=3)
    return tmp_path / "part.parquet"


@pytest.mark.parametrize("start", range(9))
@pytest.mark.parametrize("stop", range(9))
def test_a_part_is_what_slicing_the_whole_gives(shard, start, stop):
    expected = list(range(8))[start:stop]
    assert read_part(shard, COLUMN, start, max(start, stop))["row_id"].to_pylist() == expected


def test_only_the_row_groups_of_a_part_are_read(shard):
    with parquet_file(shard) as file:
        place = file.metadata.row_group(0).column(0).data_page_offset
    content = bytearray(shard.read_bytes())
    content[place : place + 16] = b"\xff" * 16
    shard.write_bytes(content)
    assert read_part(shard, COLUMN, 3, 8)["row_id"].to_pylist() == [3, 4, 5, 6, 7]
    with pytest.raises((OSError, pa.ArrowException)):
        read_part(shard, COLUMN, 2, 8)


def test_tables_are_written_in_row_groups(tmp_path):
    rows = ROWS_PER_GROUP + 5
    assert write_shards(pa.table({"row_id": range(rows)}), tmp_path, rows - 1) == [rows - 1, 1]
    with parquet_file(tmp_path / shard_name(0)) as file:
        assert file.metadata.row_group(0).num_rows == ROWS_PER_GROUP
