"""The catalogue."""

import pytest

from cluster.errors import DataError
from data_prep.catalogue import build_catalogue
from student_serve.titles import clean_title


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Pen &amp; Ink", "Pen & Ink"),
        ("Pen &amp;amp;amp; Ink", "Pen & Ink"),
        (" A\n\tB&nbsp; C ", "A B C"),
        ("AT&T R&D", "AT&T R&D"),
        ("&#39;Tis &quot;x&quot;", '\'Tis "x"'),
        ("Law &ethics, R&D &copycats, &notanentity;", "Law &ethics, R&D &copycats, &notanentity;"),
        ('<span class="a-text">Zeta</span>', "Zeta"),
        ("1 <3 2 <Beta> &lt;b&gt;Bold&lt;/b&gt;", "1 <3 2 <Beta> Bold"),
        ("Poke\u0301mon", "Pokémon"),
    ],
)
def test_clean_title(text, title):
    assert clean_title(text) == title


def test_order_missing_and_repeated(raw):
    rows = [("b", "B"), ("x", "nan"), ("a", "A"), ("y", " "), ("b", "other"), ("x", "X"), ("z", None)]
    catalogue = build_catalogue(raw(["item_id", "title"], rows), 10, "error")
    assert catalogue.ids.to_pylist() == ["b", "a", "x"]
    assert catalogue.titles.to_pylist() == ["B", "A", "X"]
    assert catalogue.untitled == {"y", "z"}
    assert catalogue.counts["items_repeated"] == 2


def test_page_source_is_no_title(raw):
    script = "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();"
    rows = [("a", "A"), ("b", script), ("c", "<style>p {}</style>"), ("d", "JavaScript: var and function")]
    catalogue = build_catalogue(raw(["item_id", "title"], rows), 100, "error")
    assert catalogue.titles.to_pylist() == ["A", "JavaScript: var and function"]
    assert catalogue.untitled == {"b", "c"}
    assert catalogue.counts["titles_of_page_source"] == 2


def test_long_title(raw):
    items = raw(["item_id", "title"], [("a", "A"), ("b", "x" * 10_000)])
    with pytest.raises(
        DataError, match=r"line 3: title of 10,000 characters, more than max_title_length 2,000: .*drop"
    ):
        build_catalogue(items, 2_000, "error")
    catalogue = build_catalogue(items, 2_000, "drop")
    assert catalogue.titles.to_pylist() == ["A", "x" * 2_000]
    assert catalogue.counts["titles_cut"] == 1


def test_empty_id(raw):
    items = raw(["item_id", "title"], [("a", "A"), ("", "B")])
    with pytest.raises(DataError, match="line 3: item_id is empty"):
        build_catalogue(items, 10, "error")
    catalogue = build_catalogue(items, 10, "drop")
    assert catalogue.ids.to_pylist() == ["a"]
    assert catalogue.counts["items_malformed"] == 1


def test_no_title_at_all(raw):
    with pytest.raises(DataError, match="no item from here on has a title"):
        build_catalogue(raw(["item_id", "title"], [("a", ""), ("b", "NaN")]), 10, "drop")
