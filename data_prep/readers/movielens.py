"""Every layout of MovieLens: 100K (``u.data``, ``u.item``), 1M and 10M (``.dat``), 20M to 32M (``.csv``)."""

from pathlib import Path

import pyarrow as pa

from cluster.errors import DataError
from data_prep.config import BadRows
from data_prep.readers.delimited import read_columns
from data_prep.readers.rawfiles import DROP_HINT, RawTable, empty, text_lines
from data_prep.readers.sniff import sniff

INTERACTIONS = {name: [name] for name in ("user_id", "item_id", "timestamp")}
ITEMS = {name: [name] for name in ("item_id", "title")}
CSV_INTERACTIONS = {"user_id": ["userId"], "item_id": ["movieId"], "timestamp": ["timestamp"]}
CSV_ITEMS = {"item_id": ["movieId"], "title": ["title"]}
# Ratings hold no single colon, so that `::` reads as two delimiters of one character, at pyarrow's speed.
DAT_RATINGS = ["user_id", "", "item_id", "", "rating", "", "timestamp"]
TAB_RATINGS = ["user_id", "item_id", "rating", "timestamp"]


def read(interactions: Path, items: Path, bad_rows: BadRows) -> tuple[RawTable, RawTable]:
    """Read ratings and movies, each in the layout that its first line shows.

    Raises:
        DataError: a file is absent or empty, is in none of the layouts, or a line has another number of fields.
    """
    return _ratings(interactions, bad_rows), _movies(items, bad_rows)


def _ratings(path: Path, bad_rows: BadRows) -> RawTable:
    line = _first_line(path)
    if "::" in line:
        return read_columns(path, INTERACTIONS, delimiter=":", bad_rows=bad_rows, quoted=False, header=DAT_RATINGS)
    if "\t" in line:
        return read_columns(path, INTERACTIONS, delimiter="\t", bad_rows=bad_rows, quoted=False, header=TAB_RATINGS)
    return read_columns(path, CSV_INTERACTIONS, delimiter=",", bad_rows=bad_rows, quoted=True)


def _movies(path: Path, bad_rows: BadRows) -> RawTable:
    line = _first_line(path)
    if "::" in line:
        return _dat_movies(path, bad_rows)
    if "|" in line and "," not in line.partition("|")[0]:
        names = ["item_id", "title", *(f"more {at}" for at in range(line.count("|") - 1))]
        return read_columns(path, ITEMS, delimiter="|", bad_rows=bad_rows, quoted=False, header=names)
    return read_columns(path, CSV_ITEMS, delimiter=",", bad_rows=bad_rows, quoted=True)


def _first_line(path: Path) -> str:
    _, line = next(text_lines(path, sniff(path).encoding), (0, ""))
    if not line:
        raise empty(path)
    return line


def _dat_movies(path: Path, bad_rows: BadRows) -> RawTable:
    """Items and titles of ``item::title::genres``; a title may hold ``::`` itself."""
    movies, malformed = [], 0
    for number, line in text_lines(path, sniff(path).encoding):
        fields = line.split("::")
        if len(fields) >= 3:
            movies.append((number, fields[0], "::".join(fields[1:-1])))
        elif bad_rows == "error":
            raise DataError(f"{path}, line {number}: {len(fields)} fields where 3 are expected: {DROP_HINT}")
        else:
            malformed += 1
    if not movies:
        raise empty(path)
    numbers, ids, titles = zip(*movies, strict=True)
    return RawTable(pa.table({"item_id": ids, "title": titles}), lambda row: f"{path}, line {numbers[row]}", malformed)
