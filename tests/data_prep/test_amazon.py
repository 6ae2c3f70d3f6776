"""Amazon JSON lines."""

import gzip
import json

import pytest

from cluster.errors import DataError
from data_prep.readers.amazon import read

REVIEW_2014 = {"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1388, "overall": 5.0, "helpful": [0, 1]}
REVIEW_2023 = {"user_id": "A1", "asin": "B1-red", "parent_asin": "B1", "timestamp": 1388, "title": "Five stars"}
META_2014 = {"asin": "B1", "title": "Pen &amp; Ink", "related": {"also_bought": ["B2"]}}
META_2023 = {"parent_asin": "B1", "title": "Pen &amp; Ink", "price": None}


@pytest.mark.parametrize("years", [(REVIEW_2014, META_2014), (REVIEW_2023, META_2023)], ids=["2014", "2023"])
@pytest.mark.parametrize("packed", [False, True])
def test_field_names(write, years, packed):
    review, meta = (f"{json.dumps(record)}\n".encode() for record in years)
    log = write("reviews.json", content=gzip.compress(review) if packed else review)
    items = write("meta.json", content=gzip.compress(meta) if packed else meta)
    interactions, titles = read(log, items, "error")
    assert interactions.columns.to_pydict() == {"user_id": ["A1"], "item_id": ["B1"], "timestamp": [1388.0]}
    assert titles.columns.to_pydict() == {"item_id": ["B1"], "title": ["Pen &amp; Ink"]}


@pytest.mark.parametrize(
    "titled",
    [
        "{'asin': 'B1', 'title': \"Kid's Pen\"}",
        "{u'asin': u'B1', u'title': u\"Kid's Pen\"}",
        """{"asin": 'B1', "title": "Kid's Pen", "brand": None}""",
    ],
)
def test_metadata_as_python_literals_and_without_some_titles(write, titled):
    log = write("reviews.json", json.dumps(REVIEW_2014))
    items = write("meta.json", "{'asin': 'B0', 'price': 1.5}", titled)
    assert read(log, items, "error")[1].columns.to_pydict() == {"item_id": ["B0", "B1"], "title": [None, "Kid's Pen"]}


def test_half_a_character_is_replaced_and_said(write, capsys):
    log = write("log.json", '{"reviewerID": "u", "asin": "a", "unixReviewTime": 5}')
    meta = write("meta.json", r'{"asin": "a", "title": "Lights \ud83c"}', r'{"asin": "b", "title": "\ud83d\ude00"}')
    _, items = read(log, meta, "error")
    assert items.columns["title"].to_pylist() == ["Lights \ufffd", "😀"]
    assert "meta.json: 1 texts with half of a character" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["{'asin': 'a', 't': None}", "{u'asin': u'a'}", '{"asin": \'a\', "more": None}'])
def test_every_kind_of_python_literal_is_read(write, line):
    log = write("log.json", '{"reviewerID": "u", "asin": "a", "unixReviewTime": 5}')
    titled = line.replace("{", "{'title': 'A', ", 1)
    _, items = read(log, write("meta.json", titled), "error")
    assert items.columns.to_pydict() == {"item_id": ["a"], "title": ["A"]}


@pytest.mark.parametrize("bad", ['{"reviewerID": "A2", ', "[1, 2]", "hello"])
def test_malformed_line(write, bad):
    log = write("reviews.json", json.dumps(REVIEW_2014), "", bad, json.dumps(REVIEW_2014))
    items = write("meta.json", json.dumps(META_2014))
    with pytest.raises(DataError, match=r"reviews\.json, line 3: not a JSON object: .*--bad-rows drop"):
        read(log, items, "error")
    interactions, _ = read(log, items, "drop")
    assert (interactions.columns.num_rows, interactions.malformed) == (2, 1)


def test_values_of_other_types_are_kept_for_the_checks(write):
    odd = {**REVIEW_2014, "unixReviewTime": "soon"}
    log = write("reviews.json", json.dumps(REVIEW_2014), json.dumps(odd))
    interactions, _ = read(log, write("meta.json", json.dumps(META_2014)), "error")
    assert interactions.columns["timestamp"].to_pylist() == ["1388", "soon"]
    assert interactions.place(1) == f"{log}, line 2"


def test_missing_field_and_files_that_are_no_json(write):
    items = write("meta.json", json.dumps(META_2014))
    with pytest.raises(DataError, match="no column `unixReviewTime` or `timestamp` among reviewerID, asin"):
        read(write("reviews.json", '{"reviewerID": "A1", "asin": "B1"}'), items, "error")
    with pytest.raises(DataError, match="line 1: not a JSON object"):
        read(write("reviews.csv", "user,item"), items, "error")
    with pytest.raises(DataError, match=r"reviews\.csv: no line is a JSON object: give a file of JSON lines"):
        read(write("reviews.csv", "user,item"), items, "drop")
