"""The official code's data files: ``train_data.df``, ``val_data.csv``, ``test_data.csv``, ``data_statis.df``.

Each row has ``seq`` (item numbers, oldest first, padded on the right with the number of items), ``len_seq`` and
``next``. The frames are pickles; they are read with an unpickler that makes data frames and nothing else.
"""

import ast
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import DataError
from data_prep.log import Ints
from data_prep.reading import read_rows, read_titles, shards
from data_prep.schema import ITEMS, ITEMS_FILE, SEQUENCES, SPLITS, Split, shard_name

FILES: dict[Split, str] = {"train": "train_data.df", "validation": "val_data.csv", "test": "test_data.csv"}
STATISTICS_FILE, ITEM_NUMBER = "data_statis.df", "item_num"
COLUMNS = ["seq", "len_seq", "next"]

_RENAMED = {("pandas.core.indexes.numeric", "Int64Index"): ("pandas", "Index")}
_ALLOWED = {
    "pandas": {"DataFrame", "Index", "RangeIndex", "StringDtype"},
    "pandas.arrays": {"ArrowStringArray"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.indexes.base": {"Index", "_new_Index"},
    "pandas.core.indexes.range": {"RangeIndex"},
    "pandas.core.internals.managers": {"BlockManager"},
    "pandas._libs.internals": {"_unpickle_block"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "pyarrow.lib": {"_restore_array", "py_buffer", "type_for_alias"},
    "builtins": {"bytearray", "slice"},
    "_codecs": {"encode"},
}


@dataclass
class OfficialRows:
    """Rows of one split."""

    history: list[list[int]]
    """Item numbers, oldest first, without padding."""
    target: Ints


@dataclass
class Official:
    """A data set as the official code has it."""

    items: int
    splits: dict[Split, OfficialRows]


class FrameUnpickler(pickle.Unpickler):
    """Refuses everything but the parts of a pandas data frame, since a pickle may name any function to call."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401  # whatever the pickle names
        """Import a part of a data frame.

        Raises:
            pickle.UnpicklingError: it is something else.
        """
        module = module.replace("__builtin__", "builtins").replace("numpy.core", "numpy._core")
        module, name = _RENAMED.get((module, name), (module, name))
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data frame needs")
        return super().find_class(module, name)


def read_official(directory: Path) -> Official:
    """Read and check the four files.

    Raises:
        DataError: a file is absent, damaged or unsafe, or a row does not fit; names file and row.
    """
    statistics = read_frame(directory / STATISTICS_FILE)
    if ITEM_NUMBER not in statistics or not len(statistics):
        raise DataError(f"{directory / STATISTICS_FILE} has no `{ITEM_NUMBER}`: write it with the number of items")
    items = int(statistics[ITEM_NUMBER].iloc[0])
    return Official(items, {split: _read_rows(directory / file, items) for split, file in FILES.items()})


def read_frame(file: Path) -> pd.DataFrame:
    """A pickled data frame.

    Raises:
        DataError: the file is absent, damaged, or holds anything but a data frame.
    """
    try:
        with file.open("rb") as stream:
            frame = FrameUnpickler(stream).load()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): check --files") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{file} is not a pickled data frame: {reason}") from error
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"{file} holds a {type(frame).__name__}, not a data frame")
    return frame


def write_dataset(official: Official, titles: list[str], directory: Path, rows_per_shard: int) -> None:
    """Write items and sequences of a data set; row ids count on over train, validation and test."""
    train_count = np.bincount(official.splits["train"].target, minlength=official.items)
    index = np.arange(official.items, dtype=np.int32)
    columns = {"item_index": index, "item_id": index.astype(str), "title": titles, "train_count": train_count}
    pq.write_table(pa.table(columns, schema=ITEMS), directory / ITEMS_FILE)
    first = 0
    for split, rows in official.splits.items():
        folder = directory / "sequences" / split
        folder.mkdir(parents=True)
        table = _sequences(rows, first)
        for number, start in enumerate(range(0, len(table), rows_per_shard)):
            pq.write_table(table.slice(start, rows_per_shard), folder / shard_name(number))
        first += len(table)


def write_official(dataset: Path, directory: Path) -> None:
    """Write a data set's rows as the official files, with item indices as item numbers."""
    items = len(read_titles(dataset))
    splits = {split: _official_rows(dataset, split) for split in SPLITS}
    length = max(len(history) for rows in splits.values() for history in rows.history)
    for split, rows in splits.items():
        frame = pd.DataFrame(
            {
                "seq": [history + [items] * (length - len(history)) for history in rows.history],
                "len_seq": list(map(len, rows.history)),
                "next": rows.target.astype(np.int64),
            }
        )
        # Names as objects, not pandas' own strings, which older pandas cannot unpickle.
        frame.columns = pd.Index(COLUMNS, dtype=object)
        if split == "train":
            frame.to_pickle(directory / FILES[split])
        else:
            frame.to_csv(directory / FILES[split], index=False)
    statistics = pd.DataFrame([[length, items]])
    statistics.columns = pd.Index(["seq_size", ITEM_NUMBER], dtype=object)
    statistics.to_pickle(directory / STATISTICS_FILE)


def _read_rows(file: Path, items: int) -> OfficialRows:
    frame = read_frame(file) if file.suffix == ".df" else _read_csv(file)
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise DataError(f"{file} has no column `{missing[0]}`, only {', '.join(map(str, frame.columns))}")
    history: list[list[int]] = []
    targets = np.empty(len(frame), dtype=np.int64)
    for row, (seq, length, target) in enumerate(frame[COLUMNS].itertuples(index=False, name=None)):
        try:
            numbers = [int(item) for item in (ast.literal_eval(seq) if isinstance(seq, str) else seq)][: int(length)]
            targets[row] = int(float(target))
        except (ValueError, TypeError, SyntaxError) as error:
            raise DataError(f"{file}, row {row}: `seq`, `len_seq` or `next` is not made of whole numbers") from error
        strange = next((item for item in [*numbers, int(targets[row])] if not 0 <= item < items), None)
        if strange is not None:
            raise DataError(f"{file}, row {row}: item {strange} is not in 0 … {items - 1} (`{ITEM_NUMBER}` {items})")
        history.append(numbers)
    return OfficialRows(history, targets)


def _read_csv(file: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _sequences(rows: OfficialRows, first: int) -> pa.Table:
    row_id = np.arange(first, first + len(rows.target))
    columns = {
        "row_id": row_id,
        "user_id": [f"row {number}" for number in row_id],  # the official rows do not name their users
        "position": np.array(list(map(len, rows.history)), dtype=np.int32),
        "history": rows.history,
        "target": rows.target.astype(np.int32),
        "timestamp": row_id.astype(np.float64),  # nor their times, beyond the order
    }
    return pa.table(columns, schema=SEQUENCES)


def _official_rows(dataset: Path, split: Split) -> OfficialRows:
    table = pa.concat_tables(read_rows(shard) for shard in shards(dataset, split))
    return OfficialRows(table["history"].to_pylist(), table["target"].to_numpy().astype(np.int64))
