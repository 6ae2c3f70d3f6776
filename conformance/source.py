"""What a reader of raw files must hold."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from cluster.dotted_path import find
from cluster.errors import DataError
from conformance.promise import promise
from data_prep.catalogue import build_catalogue
from data_prep.config import READERS, PrepareConfig
from data_prep.log import build_log
from data_prep.readers.rawfiles import RawTable, Reader

COLUMNS = {"interactions": ["user_id", "item_id", "timestamp"], "items": ["item_id", "title"]}


def check_source(name: str, interactions: Path, items: Path) -> None:
    """Put a reader through the promises that ``prepare`` relies on.

    Args:
        name: as in ``--source``: a built-in name or a dotted path.
        interactions: a small sound log in its format: two items of a user at least, each interaction once.
        items: titles of those items in its format.

    Raises:
        ConformanceError: names the promise that is broken.
        ConfigError: the dotted path leads to nothing.
    """
    read: Reader = find(READERS, name)
    tables = read(interactions, items, "error")
    promise(isinstance(tables, tuple) and len(tables) == 2, name, "gives two tables: interactions and items")
    for (what, columns), table in zip(COLUMNS.items(), tables, strict=True):
        _table(table, columns, name, what)
    again, dropped = read(interactions, items, "error"), read(interactions, items, "drop")
    same = all(table.columns.equals(other.columns) for table, other in zip(tables * 2, again + dropped, strict=True))
    promise(same, name, "reads the same files the same way again, and with bad rows dropped, where none is bad")
    _prepares(*tables, name)
    _refuses(lambda path: read(path, items, "error"), interactions, name)
    _refuses(lambda path: read(interactions, path, "error"), items, name)


def _table(table: RawTable, columns: list[str], name: str, what: str) -> None:
    promise(isinstance(table, RawTable), name, f"gives {what} as a data_prep.readers.rawfiles.RawTable")
    lacking = [column for column in columns if column not in table.columns.column_names]
    promise(not lacking, name, f"gives {what} with the columns {', '.join(columns)}; not {', '.join(lacking)}")
    promise(table.columns.num_rows > 0, name, f"gives the rows of {what}")
    for column in columns:
        kind = table.columns[column].type
        fits = pa.types.is_string(kind) or (column == "timestamp" and pa.types.is_float64(kind))
        promise(fits, name, f"gives {column} of {what} as strings (timestamps may be float64), not {kind}")
    promise(table.malformed == 0, name, f"counts no malformed rows in sound {what}")
    places = [table.place(row) for row in {0, table.columns.num_rows - 1}]
    promise(
        all(isinstance(at, str) and at and "\n" not in at for at in places), name, f"says where a row of {what} stands"
    )
    promise(len(set(places)) == len(places), name, f"says of every row of {what} another place")


def _prepares(interactions: RawTable, items: RawTable, name: str) -> None:
    """What ``prepare`` refuses, it refuses with the reader's own words for the place."""
    try:
        catalogue = build_catalogue(items, PrepareConfig().max_title_length, "error")
        build_log(interactions, catalogue, "error")
    except DataError as error:
        promise(False, name, f"gives what prepare takes; it says: {error}")


def _refuses(read: Callable[[Path], object], sound: Path, name: str) -> None:
    """A file that is not there, or holds nothing, is a DataError of one line."""
    with tempfile.TemporaryDirectory() as folder:
        absent, nothing = Path(folder) / f"absent-{sound.name}", Path(folder) / f"empty-{sound.name}"
        nothing.touch()
        for path in (absent, nothing):
            try:
                read(path)
            except DataError as error:
                promise(
                    path.name in str(error) and "\n" not in str(error), name, f"names the file in one line: {error}"
                )
            except (OSError, ValueError, TypeError, LookupError, StopIteration) as error:
                promise(False, name, f"raises a DataError for {path.name}, not {type(error).__name__}")
            else:
                promise(False, name, f"raises a DataError for {path.name}")
