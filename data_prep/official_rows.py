"""The official code's data files: the rows ``train_data``, ``val_data``, ``test_data``, and ``data_statis``.

Each row has ``seq`` (item numbers, oldest first, padded on the right with the number of items), ``len_seq`` and
``next``. A file may be Parquet, CSV (``seq`` as ``[1, 2]``) or, as the official code has two of them, a pickled data
frame (``.df``).
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from data_prep.reading import read_rows, read_titles, shards
from data_prep.schema import SEQUENCES, SPLITS, Split
from data_prep.shards import write_items, write_shards

FILES: dict[Split, str] = {"train": "train_data", "validation": "val_data", "test": "test_data"}
STATISTICS_FILE, ITEM_NUMBER = "data_statis", "item_num"
COLUMNS = ["seq", "len_seq", "next"]
READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".csv": pd.read_csv,
    ".df": pd.read_pickle,
}
DAMAGED = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, ImportError, EOFError)


Rows = dict[Split, pa.Table]
"""Per split the columns ``history``, item numbers without padding, oldest first, and ``target``."""


def read_official(directory: Path, trust_pickles: bool) -> tuple[int, Rows]:
    """Read and check the four files; gives the number of items and the rows.

    Raises:
        DataError: a file is absent, damaged or a pickle that is not trusted, or a row does not fit; names file and row.
    """
    file, statistics = read_frame(directory, STATISTICS_FILE, trust_pickles)
    if ITEM_NUMBER not in statistics or not len(statistics):
        raise DataError(f"{file} has no `{ITEM_NUMBER}`: write it with the number of items")
    items = int(statistics[ITEM_NUMBER].iloc[0])
    return items, {split: _rows(*read_frame(directory, name, trust_pickles), items) for split, name in FILES.items()}


def read_frame(directory: Path, name: str, trust_pickles: bool) -> tuple[Path, pd.DataFrame]:
    """The file of this name, Parquet before CSV before a pickle, and its data frame.

    Raises:
        DataError: there is none, it is damaged, or it is a pickle that is not trusted.
    """
    file = next((file for suffix in READERS if (file := directory / f"{name}{suffix}").is_file()), None)
    if file is None:
        raise DataError(f"{directory} holds no {' or '.join(name + suffix for suffix in READERS)}: check --files")
    if file.suffix == ".df" and not trust_pickles:
        convert = f"import pandas; pandas.read_pickle('{file}').to_parquet('{file.with_suffix('.parquet')}')"
        raise DataError(
            f"{file} is a pickle, and a pickle can run any program when it is read: if you trust it, add "
            f'--trust-pickles True or write it as Parquet: python -c "{convert}"'
        )
    try:
        frame = READERS[file.suffix](file)
    except (*DAMAGED, pickle.UnpicklingError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())[:200]}: write it again") from error
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"{file} holds a {type(frame).__name__}, not a data frame")
    return file, frame


def write_dataset(splits: Rows, titles: list[str], directory: Path, rows_per_shard: int) -> dict[str, list[int]]:
    """Write items and sequences of a data set; row ids count on over train, validation and test.

    Returns:
        The rows of each shard by split.
    """
    written: dict[str, list[int]] = {}
    train_count = np.bincount(splits["train"]["target"].to_numpy(), minlength=len(titles))
    write_items(directory, list(map(str, range(len(titles)))), titles, train_count)
    first = 0
    for split, rows in splits.items():
        row_id = np.arange(first, first + len(rows))
        columns = {
            "row_id": row_id,
            "user_id": [f"row {number}" for number in row_id],  # the official rows do not name their users
            "position": pc.list_value_length(rows["history"]),
            "history": rows["history"],
            "target": rows["target"],
            "timestamp": row_id.astype(np.float64),  # nor their times, beyond the order
        }
        table = pa.table(columns).cast(SEQUENCES)
        written[split] = write_shards(table, directory / "sequences" / split, rows_per_shard)
        first += len(rows)
    return written


def write_official(dataset: Path, directory: Path) -> None:
    """Write a data set's rows as the official files, with item indices as item numbers.

    What the official code reads as pickles stands as Parquet beside them, for programs that do not trust pickles.
    """
    items = len(read_titles(dataset))
    rows = {split: pa.concat_tables(read_rows(shard) for shard in shards(dataset, split)) for split in SPLITS}
    histories = {split: table["history"].to_pylist() for split, table in rows.items()}
    length = max(len(history) for several in histories.values() for history in several)
    frames = {STATISTICS_FILE: pd.DataFrame([[length, items]], columns=["seq_size", ITEM_NUMBER])}
    for split, several in histories.items():
        padded = [history + [items] * (length - len(history)) for history in several]
        targets = rows[split]["target"].to_numpy().astype(np.int64)
        frames[FILES[split]] = pd.DataFrame(dict(zip(COLUMNS, (padded, map(len, several), targets), strict=True)))
    for name, frame in frames.items():
        if name in (FILES["train"], STATISTICS_FILE):
            frame.to_parquet(directory / f"{name}.parquet", index=False)
            # Names as objects, not pandas' own strings, which older pandas cannot unpickle.
            frame.columns = pd.Index(frame.columns, dtype=object)
            frame.to_pickle(directory / f"{name}.df")
        else:
            frame.to_csv(directory / f"{name}.csv", index=False)


def _rows(file: Path, frame: pd.DataFrame, items: int) -> pa.Table:
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise DataError(f"{file} has no column `{missing[0]}`, only {', '.join(map(str, frame.columns))}")
    histories, targets = [], []
    for row, (seq, length, target) in enumerate(frame[COLUMNS].itertuples(index=False, name=None)):
        try:
            histories.append([int(item) for item in (json.loads(seq) if isinstance(seq, str) else seq)][: int(length)])
            targets.append(int(float(target)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{file}, row {row}: `seq`, `len_seq` or `next` is not made of whole numbers") from error
        strange = next((item for item in [*histories[-1], targets[-1]] if not 0 <= item < items), None)
        if strange is not None:
            raise DataError(f"{file}, row {row}: item {strange} is not in 0 … {items - 1} (`{ITEM_NUMBER}` {items})")
    return pa.table({"history": pa.array(histories, pa.list_(pa.int32())), "target": pa.array(targets, pa.int32())})
