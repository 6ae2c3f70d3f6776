"""The catalogue: items with a readable title, in the order of the items file."""

import html
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from cluster.errors import DataError
from data_prep.config import BadRows
from data_prep.readers.rawfiles import DROP_HINT, RawTable

NO_TITLE = ("", "nan")


@dataclass(frozen=True)
class Catalogue:
    """N items: ids and titles by item index, and what was left out."""

    ids: pa.Array
    titles: pa.Array
    untitled: frozenset[str]
    counts: dict[str, int]


def build_catalogue(raw: RawTable, max_title_length: int, bad_rows: BadRows) -> Catalogue:
    """Decode titles and leave out items without one; of a repeated item id the first titled row counts.

    Raises:
        DataError: an item id is empty or a title longer than ``max_title_length`` (unless bad rows are dropped, which
            cuts long titles), or no item has a title.
    """
    titles = [clean_title(text or "") for text in raw.columns["title"].to_pylist()]
    rows = pd.DataFrame({"id": raw.columns["item_id"].to_pylist(), "title": titles}, dtype=object)
    named, long = rows["id"].astype(bool), rows["title"].str.len() > max_title_length
    bad = ~named | long
    if bad.any() and bad_rows == "error":
        row = int(bad.to_numpy().argmax())
        length = f"title of {len(titles[row]):,} characters, more than max_title_length {max_title_length:,}"
        raise DataError(f"{raw.place(row)}: {length if named[row] else 'item_id is empty'}: {DROP_HINT}")
    rows["title"] = rows["title"].str[:max_title_length].str.rstrip()
    titled = rows[named & ~rows["title"].str.lower().isin(NO_TITLE)].drop_duplicates("id")
    if titled.empty:
        raise DataError(f"{raw.place(0)}: no item from here on has a title: check the title column")
    return Catalogue(
        ids=pa.array(titled["id"], pa.string()),
        titles=pa.array(titled["title"], pa.string()),
        untitled=frozenset(rows["id"][named]) - frozenset(titled["id"]),
        counts={
            "items_repeated": int(rows["id"][named].duplicated().sum()),
            "items_malformed": int((~named).sum()) + raw.malformed,
            "titles_cut": int((named & long).sum()),
        },
    )


def clean_title(text: str) -> str:
    """Decode HTML entities, encoded any number of times, and write every run of white space as one blank."""
    while "&" in text and (decoded := html.unescape(text)) != text:
        text = decoded
    return " ".join(text.split())
