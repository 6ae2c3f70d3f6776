"""Writes a data set's Parquet files (schema.py)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from cluster.files import write_parquet
from data_prep.log import Ints, Log
from data_prep.schema import ITEMS, ITEMS_FILE, shard_name
from data_prep.sequences import Rows, sequence_table
from data_prep.splits import NAMES, Splits

ROWS_PER_GROUP = 16_384
"""Of a shard, so many rows can be read without the others."""


def write_items(directory: Path, item_ids: Sequence[str], titles: Sequence[str], train_count: Ints) -> None:
    """Write the catalogue; all by item index, ``train_count`` says how often each item is a target in train."""
    index = np.arange(len(item_ids), dtype=np.int32)
    columns = {"item_index": index, "item_id": item_ids, "title": titles, "train_count": train_count}
    write_parquet(pa.table(columns, schema=ITEMS), directory / ITEMS_FILE)


def write_shards(table: pa.Table, folder: Path, rows_per_shard: int) -> list[int]:
    """Write a table in shards of ``rows_per_shard`` rows; returns the rows of each."""
    shards = [table.slice(start, rows_per_shard) for start in range(0, len(table), rows_per_shard)]
    for number, shard in enumerate(shards):
        write_parquet(shard, folder / shard_name(number), row_group_size=ROWS_PER_GROUP)
    return list(map(len, shards))


def write_sequences(
    directory: Path, log: Log, rows: Rows, splits: Splits, max_history: int, rows_per_shard: int
) -> dict[str, list[int]]:
    """Write the shards of every split that has rows, one at a time; returns the rows of each shard by split."""
    written: dict[str, list[int]] = {}
    for split in np.unique(splits):
        folder = directory / "sequences" / NAMES[split]
        row_ids = np.flatnonzero(splits == split)
        cuts = shard_starts(rows.first[row_ids], rows_per_shard)[1:]
        shards = np.split(row_ids, cuts)
        for number, shard in enumerate(shards):
            table = sequence_table(log, rows, shard, max_history)
            write_parquet(table, folder / shard_name(number), row_group_size=ROWS_PER_GROUP)
        written[NAMES[split]] = list(map(len, shards))
    return written


def shard_starts(users: Ints, rows_per_shard: int) -> Ints:
    """Starts of shards of about ``rows_per_shard`` rows that never part a user's rows.

    Args:
        users: anything that names the user of each row [R], users standing together.
        rows_per_shard: a shard ends with the first user that fills it.
    """
    user_starts = np.flatnonzero(np.diff(users, prepend=-1))
    _, opens = np.unique(user_starts // rows_per_shard, return_index=True)
    return user_starts[opens]
