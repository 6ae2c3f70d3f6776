"""The catalogue: items with a readable title, in the order of the items file."""

import re
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from data_prep.config import BadRows
from data_prep.readers.rawfiles import DROP_HINT, RawTable
from student_serve.titles import clean_title

NO_TITLE = ("", "nan")
# Amazon's metadata of 2018 has scripts and style sheets where some titles should be.
PAGE_SOURCE = re.compile(
    r"\bgetTime\(\)|<\s*(?:script|style|html|head|body)\b|\bwindow\.\w+\s*=|^\s*(?:var|function)\s\w+\s*[=(]",
    re.IGNORECASE,
)


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
    texts = [text or "" for text in raw.columns["title"].to_pylist()]
    page_source = [bool(PAGE_SOURCE.search(text)) for text in texts]
    titles = ["" if page else clean_title(text) for text, page in zip(texts, page_source, strict=True)]
    ids = pc.utf8_trim_whitespace(raw.columns["item_id"]).to_pylist()
    rows = pd.DataFrame({"id": ids, "title": titles}, dtype=object)
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
            "titles_of_page_source": sum(page_source),
        },
    )
