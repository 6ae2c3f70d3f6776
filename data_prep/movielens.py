"""MovieLens 1M and 10M: ``ratings.dat`` and ``movies.dat`` with ``::`` between fields, ISO-8859-1."""

from pathlib import Path

import pyarrow as pa

from cluster.errors import DataError
from data_prep.config import BadRows
from data_prep.delimited import parse
from data_prep.rawfiles import DROP_HINT, LATIN1, RawTable, check_text, empty, text_lines

SEPARATOR = "::"


def read(interactions: Path, items: Path, bad_rows: BadRows) -> tuple[RawTable, RawTable]:
    """Read ratings (user::item::rating::timestamp) and movies (item::title::genres).

    Raises:
        DataError: a file is absent or empty, or a line has another number of fields.
    """
    return _ratings(interactions, bad_rows), _movies(items, bad_rows)


def _ratings(path: Path, bad_rows: BadRows) -> RawTable:
    """Ratings hold no single colon, so that ``::`` reads as two one-character delimiters, at pyarrow's speed."""
    check_text(path, LATIN1)
    raw = parse(path, width=7, delimiter=":", bad_rows=bad_rows, header=False, encoding=LATIN1)
    table = raw.columns.select(["0", "2", "6"]).rename_columns(["user_id", "item_id", "timestamp"])
    return RawTable(table, raw.place, raw.malformed)


def _movies(path: Path, bad_rows: BadRows) -> RawTable:
    check_text(path, LATIN1)
    lines, ids, titles, malformed = [], [], [], 0
    for number, line in text_lines(path, LATIN1):
        fields = line.split(SEPARATOR)
        if len(fields) >= 3:
            lines.append(number)
            ids.append(fields[0])
            titles.append(SEPARATOR.join(fields[1:-1]))
        elif bad_rows == "error":
            raise DataError(f"{path}, line {number}: {len(fields)} fields where 3 are expected: {DROP_HINT}")
        else:
            malformed += 1
    if not ids:
        raise empty(path)
    table = pa.table({"item_id": pa.array(ids, pa.string()), "title": pa.array(titles, pa.string())})
    return RawTable(table, lambda row: f"{path}, line {lines[row]}", malformed)
