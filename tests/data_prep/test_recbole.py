"""RecBole atomic files."""

import pytest

from cluster.errors import DataError
from data_prep.readers.recbole import read


@pytest.mark.parametrize("column", ["title:token_seq", "movie_title:token_seq", "name:token_seq"])
def test_read(write, column):
    log = write("x.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float", "7\t01\t3\t881250949.0")
    items = write("x.item", f"item_id:token\tyear:token\t{column}", "01\t1995\tToy Story")
    interactions, titles = read(log, items, "error")
    assert interactions.columns.to_pydict() == {"user_id": ["7"], "item_id": ["01"], "timestamp": ["881250949.0"]}
    assert titles.columns.to_pydict() == {"item_id": ["01"], "title": ["Toy Story"]}


def test_missing_title_column(write):
    log = write("x.inter", "user_id:token\titem_id:token\ttimestamp:float", "7\t1\t3")
    items = write("x.item", "item_id:token\tmovie_titel:token_seq", "1\tToy Story")
    with pytest.raises(DataError, match=r"x\.item: no column `title` or .* rename `movie_titel` to `title`"):
        read(log, items, "error")
