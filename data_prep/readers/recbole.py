"""RecBole atomic files: tab-separated, header names ``field:type``, nothing quoted."""

from pathlib import Path

from data_prep.config import BadRows
from data_prep.readers.delimited import read_columns
from data_prep.readers.rawfiles import RawTable

INTERACTIONS = {"user_id": ["user_id"], "item_id": ["item_id"], "timestamp": ["timestamp"]}
ITEMS = {"item_id": ["item_id"], "title": ["title", "movie_title", "name"]}


def read(interactions: Path, items: Path, bad_rows: BadRows) -> tuple[RawTable, RawTable]:
    """Read ``.inter`` (user_id, item_id, timestamp) and ``.item`` (item_id, title).

    Raises:
        DataError: a file is absent, empty, not UTF-8, lacks a column, or has a malformed row.
    """
    log = read_columns(interactions, INTERACTIONS, delimiter="\t", bad_rows=bad_rows, quoted=False, typed=True)
    titles = read_columns(items, ITEMS, delimiter="\t", bad_rows=bad_rows, quoted=False, typed=True)
    return log, titles
