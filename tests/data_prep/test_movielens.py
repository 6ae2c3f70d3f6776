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


def test_every_layout(write):
    rows = [["1", "122", "838985046"], ["1", "185", "838983525"]]
    logs = {
        "u.data": write("u.data", *("\t".join([user, item, "5", time]) for user, item, time in rows)),
        "csv": write("r.csv", "userId,movieId,rating,timestamp", *(",".join([u, i, "5.0", t]) for u, i, t in rows)),
        "dat": write("r.dat", *("::".join([user, item, "5", time]) for user, item, time in rows)),
    }
    titles = {
        "u.data": write("u.item", "122|Amélie (2001)|01-Jan-2001||u|0|1", "185|A, B|||u|1|1", encoding="iso-8859-1"),
        "csv": write("m.csv", "movieId,title,genres", "122,Amélie (2001),X|Y", '185,"A, B",X'),
        "dat": write("m.dat", "122::Amélie (2001)::X|Y", "185::A, B::X"),
    }
    for layout, log in logs.items():
        interactions, items = read(log, titles[layout], "error")
        assert [list(row.values()) for row in interactions.columns.to_pylist()] == rows
        assert items.columns.to_pydict() == {"item_id": ["122", "185"], "title": ["Amélie (2001)", "A, B"]}


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
