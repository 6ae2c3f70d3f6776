"""CSV and Parquet with the columns user_id, item_id, timestamp, and item_id, title."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import DataError
from cluster.files import arrow
from cluster.paths import told
from data_prep.config import BadRows
from data_prep.readers.delimited import read_columns
from data_prep.readers.rawfiles import RawTable, empty, find_column

INTERACTIONS = ["user_id", "item_id", "timestamp"]
ITEMS = ["item_id", "title"]


def read_csv(interactions: Path, items: Path, bad_rows: BadRows) -> tuple[RawTable, RawTable]:
    """Read two comma-separated files with headers, plain or gzip.

    Raises:
        DataError: a file is absent, empty, not UTF-8, lacks a column, or has a malformed row.
    """
    log = read_columns(interactions, {c: [c] for c in INTERACTIONS}, delimiter=",", bad_rows=bad_rows, quoted=True)
    titles = read_columns(items, {c: [c] for c in ITEMS}, delimiter=",", bad_rows=bad_rows, quoted=True)
    return log, titles


def read_parquet(interactions: Path, items: Path, bad_rows: BadRows) -> tuple[RawTable, RawTable]:
    """Read two Parquet files or directories of them; date columns become seconds since 1970.

    Raises:
        DataError: a file is absent, empty, not Parquet, lacks a column, or has one of an unusable type.
    """
    return _read_parquet(interactions, INTERACTIONS), _read_parquet(items, ITEMS)


def _read_parquet(path: Path, wanted: list[str]) -> RawTable:
    try:
        with told(path):
            name, filesystem = arrow(path)
            dataset = pq.ParquetDataset(name, filesystem=filesystem)
            table = dataset.read([find_column(path, dataset.schema.names, [column]) for column in wanted])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}): check the path") from error
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path}: not a complete Parquet file ({' '.join(str(error).split())}): write it again"
        ) from error
    if not table.num_rows:
        raise empty(path)
    columns = {column: _as_text_or_number(path, column, table[column]) for column in wanted}
    return RawTable(pa.table(columns), lambda row: f"{path}, row {row + 1}")


def _as_text_or_number(path: Path, column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = values.type
    try:
        if pa.types.is_dictionary(kind):
            return _as_text_or_number(path, column, values.cast(kind.value_type))
        if column == "timestamp" and pa.types.is_temporal(kind):
            microseconds = values.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False).cast(pa.int64())
            return pc.divide(microseconds.cast(pa.float64(), safe=False), 1e6)
        is_number = pa.types.is_primitive(kind) or pa.types.is_decimal(kind)
        # Nanoseconds have more digits than a float, whose error of some hundred of them changes no order of a user's.
        return values.cast(pa.float64() if column == "timestamp" and is_number else pa.string(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path}: column `{column}` of type {kind} is unusable: make it text or numbers") from error
