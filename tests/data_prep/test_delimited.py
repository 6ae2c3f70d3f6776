"""Delimited text."""

import pytest

from cluster.errors import DataError
from data_prep.readers.delimited import read_columns

WANTED = {"item": ["item"], "title": ["title", "name"]}


def test_columns_are_found_by_name_in_any_order(write):
    path = write("items.csv", "\ufeffname,more,item", '"A, ""b""",x,007', "", "NaN,,1e3")
    table = read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=True).columns
    assert table.to_pydict() == {"item": ["007", "1e3"], "title": ['A, "b"', "NaN"]}


def test_row_places_count_blank_lines_and_quoted_line_breaks(write):
    path = write("items.csv", "item,title", "", '1,"two', 'lines"', "2,b", "", "3,c")
    raw = read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=True)
    assert raw.columns["title"].to_pylist() == ["two\nlines", "b", "c"]
    assert [raw.place(row) for row in range(3)] == [f"{path}, line {line}" for line in (3, 5, 7)]


def test_quotes_are_plain_text_where_nothing_is_quoted(write):
    path = write("items.item", "item:token\ttitle:token_seq", '1\t"Weird Al', '2\tb"')
    raw = read_columns(path, WANTED, delimiter="\t", bad_rows="error", quoted=False, typed=True)
    assert raw.columns["title"].to_pylist() == ['"Weird Al', 'b"']
    assert raw.place(1) == f"{path}, line 3"


@pytest.mark.parametrize("quoted", [True, False])
def test_wrong_number_of_fields(write, quoted):
    path = write("items.csv", "item,title", "1,a", "", "2", "3,c,d", "4,e")
    with pytest.raises(DataError, match=r"items\.csv, line 4: 1 fields where 2 are expected: .*--bad-rows drop"):
        read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=quoted)
    raw = read_columns(path, WANTED, delimiter=",", bad_rows="drop", quoted=quoted)
    assert raw.columns["item"].to_pylist() == ["1", "4"]
    assert raw.malformed == 2


@pytest.mark.parametrize("lines", [["item,title"], ["", ""]])
def test_no_rows(write, lines):
    with pytest.raises(DataError, match="holds no rows"):
        read_columns(write("items.csv", *lines), WANTED, delimiter=",", bad_rows="error", quoted=True)
