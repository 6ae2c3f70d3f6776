"""MovieLens .dat files."""

import pytest

from cluster.errors import DataError
from data_prep.readers.movielens import read


def test_read(write):
    log = write("ratings.dat", "1::122::5::838985046", "1::185::4.5::838983525")
    items = write("movies.dat", "122::Café: Amélie (2001)::Comedy|Drama", "", "9::A::B::X", encoding="iso-8859-1")
    interactions, titles = read(log, items, "error")
    assert interactions.columns.to_pydict() == {
        "user_id": ["1", "1"],
        "item_id": ["122", "185"],
        "timestamp": ["838985046", "838983525"],
    }
    assert titles.columns.to_pydict() == {"item_id": ["122", "9"], "title": ["Café: Amélie (2001)", "A::B"]}
    assert interactions.place(1) == f"{log}, line 2"
    assert titles.place(1) == f"{items}, line 3"


def test_malformed_lines(write):
    good_log, good_items = write("r.dat", "1::2::5::3"), write("m.dat", "2::A::X")
    bad_log, bad_items = write("ratings.dat", "1::2::5::3", "1::2"), write("movies.dat", "2::A::X", "3,B,X")
    with pytest.raises(DataError, match=r"ratings\.dat, line 2"):
        read(bad_log, good_items, "error")
    with pytest.raises(DataError, match=r"movies\.dat, line 2: 1 fields where 3 are expected"):
        read(good_log, bad_items, "error")
    interactions, titles = read(bad_log, bad_items, "drop")
    assert (interactions.columns.num_rows, interactions.malformed) == (1, 1)
    assert (titles.columns.num_rows, titles.malformed) == (1, 1)
