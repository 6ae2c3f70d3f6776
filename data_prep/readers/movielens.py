"""MovieLens 1M and 10M: ``ratings.dat`` and ``movies.dat`` with ``::`` between fields, ISO-8859-1."""

from pathlib import Path

import pyarrow as pa

from cluster.errors import DataError
from data_prep.config import BadRows
from data_prep.readers.delimited import read_columns
from data_prep.readers.rawfiles import DROP_HINT, LATIN1, RawTable, empty, text_lines

INTERACTIONS = {name: [name] for name in ("user_id", "item_id", "timestamp")}
# Ratings hold no single colon, so that `::` reads as two delimiters of one character, at pyarrow's speed.
RATINGS = ["user_id", "", "item_id", "", "rating", "", "timestamp"]


def read(interactions: Path, items: Path, bad_rows: BadRows) -> tuple[RawTable, RawTable]:
    """Read ratings (user::item::rating::timestamp) and movies (item::title::genres).

    Raises:
        DataError: a file is absent or empty, or a line has another number of fields.
    """
    ratings = read_columns(
        interactions, INTERACTIONS, delimiter=":", bad_rows=bad_rows, quoted=False, header=RATINGS, encoding=LATIN1
    )
    return ratings, _movies(items, bad_rows)


def _movies(path: Path, bad_rows: BadRows) -> RawTable:
    """Items and titles; a title may hold ``::`` itself."""
    movies, malformed = [], 0
    for number, line in text_lines(path, LATIN1):
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
