"""The catalogue: items with a readable title, in the order of the items file."""

import html
from dataclasses import dataclass

import pyarrow as pa

from cluster.errors import DataError
from data_prep.config import BadRows
from data_prep.rawfiles import DROP_HINT, RawTable

NO_TITLE = {"", "nan"}


@dataclass(frozen=True)
class Catalogue:
    """N items: ids and titles by item index, and what was left out."""

    ids: pa.Array
    titles: pa.Array
    untitled: frozenset[str]
    repeated: int
    cut: int
    malformed: int


def build_catalogue(raw: RawTable, max_title_length: int, bad_rows: BadRows) -> Catalogue:
    """Decode titles and leave out items without one; of a repeated item id the first titled row counts.

    Raises:
        DataError: an item id is empty or a title longer than ``max_title_length`` (unless bad rows are dropped, which
            cuts long titles), or no item has a title.
    """
    titles: dict[str, str] = {}
    untitled: set[str] = set()
    repeated = cut = malformed = 0
    rows = zip(raw.columns["item_id"].to_pylist(), raw.columns["title"].to_pylist(), strict=True)
    for row, (item, text) in enumerate(rows):
        title = clean_title(text or "")
        if fault := _fault(item, title, max_title_length):
            if bad_rows == "error":
                raise DataError(f"{raw.place(row)}: {fault}: {DROP_HINT}")
            malformed += not item
            cut += bool(item)
        if not item:
            continue
        repeated += item in titles or item in untitled
        if title.lower() in NO_TITLE:
            untitled.add(item)
        else:
            titles.setdefault(item, title[:max_title_length].rstrip())
    if not titles:
        raise DataError(f"{raw.place(0)}: no item from here on has a title: check the title column")
    return Catalogue(
        ids=pa.array(list(titles), pa.string()),
        titles=pa.array(list(titles.values()), pa.string()),
        untitled=frozenset(untitled - titles.keys()),
        repeated=repeated,
        cut=cut,
        malformed=malformed + raw.malformed,
    )


def clean_title(text: str) -> str:
    """Decode HTML entities, encoded any number of times, and write every run of white space as one blank."""
    while "&" in text and (decoded := html.unescape(text)) != text:
        text = decoded
    return " ".join(text.split())


def _fault(item: str | None, title: str, max_title_length: int) -> str | None:
    if not item:
        return "item_id is empty"
    if len(title) > max_title_length:
        return f"title of {len(title):,} characters, more than max_title_length {max_title_length:,}"
    return None
