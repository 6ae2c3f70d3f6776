"""Reading a data set directory: the catalogue's titles and the sequence shards."""

from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError, StaleInputError
from cluster.files import parquet_file, parquet_rows, read_parquet
from cluster.storage import read_manifest
from data_prep.schema import ITEMS, ITEMS_FILE, SEQUENCES, Split, sequence_files


def read_titles(dataset: Path) -> list[str]:
    """Titles of the catalogue, in item_index order.

    Raises:
        DataError: the file is damaged.
    """
    return read_table(dataset / ITEMS_FILE, ITEMS)["title"].to_pylist()


def shards(dataset: Path, split: Split) -> list[Path]:
    """Shards of a split, in order.

    Raises:
        StaleInputError: there are none.
    """
    files = sequence_files(dataset, split)
    if not files:
        raise StaleInputError(f"{dataset} holds no rows of the {split} split: run `dllm2rec prepare` again")
    return files


def shard_rows(dataset: Path, split: Split) -> dict[Path, int]:
    """The shards of a split, in order, and their rows as the manifest says; one of an earlier version is counted.

    Raises:
        StaleInputError: there are none, or not those that the manifest names.
    """
    files, counts = shards(dataset, split), read_manifest(dataset).shards.get(split)
    if counts is None:
        counts = [parquet_rows(file) for file in files]
    if len(counts) != len(files):
        raise StaleInputError(
            f"{dataset} holds {len(files)} shards of the {split} split, not {len(counts)}: run `dllm2rec prepare` again"
        )
    return dict(zip(files, counts, strict=True))


def read_part(file: Path, schema: pa.Schema, start: int, stop: int) -> pa.Table:
    """Rows ``start`` to ``stop`` of a shard; only the row groups that hold them are read."""
    with parquet_file(file) as opened:
        sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.metadata.num_row_groups)]
        begins = [0, *accumulate(sizes)]
        groups = [group for group, begin in enumerate(begins[:-1]) if begin < stop and begins[group + 1] > start]
        if not groups:
            return schema.empty_table()
        rows = opened.read_row_groups(groups, columns=schema.names).cast(schema)
    return rows.slice(start - begins[groups[0]], stop - start)


def read_rows(shard: Path) -> pa.Table:
    """The rows of one shard (SEQUENCES).

    Raises:
        DataError: the file is damaged or a history is empty.
    """
    return _checked(read_table(shard, SEQUENCES), shard)


def count_rows(dataset: Path, split: Split) -> int:
    """Rows of a split."""
    return sum(shard_rows(dataset, split).values())


def read_range(dataset: Path, split: Split, start: int, rows: int) -> pa.Table:
    """``rows`` rows of a split (SEQUENCES) from place ``start`` on, whichever shards they lie in.

    Only the row groups that hold them are read.

    Raises:
        DataError: a file is damaged or a history is empty.
        StaleInputError: the split has no rows.
    """
    found, begin = [SEQUENCES.empty_table()], 0
    for file, count in shard_rows(dataset, split).items():
        first, last = max(start - begin, 0), min(start + rows - begin, count)
        begin += count
        if first < last:
            try:
                part = read_part(file, SEQUENCES, first, last)
            except (KeyError, pa.ArrowException) as error:
                reason = " ".join(str(error).split())[:200]
                raise DataError(f"{file} cannot be read: {reason}: run `dllm2rec prepare` again") from error
            found.append(_checked(part, file))
    return pa.concat_tables(found)


def _checked(rows: pa.Table, shard: Path) -> pa.Table:
    empty = rows.filter(pc.equal(pc.list_value_length(rows["history"]), 0))
    if len(empty):
        row_id = empty["row_id"][0].as_py()
        raise DataError(f"{shard}: row {row_id} has an empty history: run `dllm2rec prepare` again")
    return rows


def longest_history(dataset: Path, splits: Iterable[Split]) -> int:
    """Items in the longest history of these splits."""
    files = [shard for split in splits for shard in shards(dataset, split)]
    return max(pc.max(pc.list_value_length(read_rows(file)["history"])).as_py() or 0 for file in files)


def read_table(file: Path, schema: pa.Schema) -> pa.Table:
    """One Parquet file of a known schema.

    Raises:
        DataError: the file is absent, damaged or of another schema.
    """
    try:
        return read_parquet(file, schema.names).cast(schema)
    except (OSError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{file} cannot be read: {reason}: run `dllm2rec prepare` again") from error
