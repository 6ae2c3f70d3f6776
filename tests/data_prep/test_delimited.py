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


@pytest.mark.parametrize("content", ["é\n".encode(), "é\n".encode("latin-1")])
def test_what_is_not_utf8_is_latin1_which_is_said(write, content, capsys):
    path = write("items.csv", content=b"item,title\n1," + content)
    raw = read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=True)
    assert raw.columns["title"].to_pylist() == ["é"]
    assert capsys.readouterr().out.count("is not UTF-8: read as ISO-8859-1") == (len(content) == 2)


def test_a_file_that_was_converted_is_looked_at_again(write):
    for content in ("aé".encode("latin-1"), "é".encode()):
        path = write("items.csv", content=b"item,title\n1," + content + b"\n")
        raw = read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=True)
        assert raw.columns["title"].to_pylist() == [content.decode("latin-1" if content[0] == 97 else "utf-8")]


def test_a_character_cut_by_the_end_of_what_is_read_at_once_is_utf8(write, monkeypatch):
    monkeypatch.setattr("data_prep.readers.sniff._BLOCK", 14)
    path = write("items.csv", "item,title", "1,aé", '2,"3\\" nail"')
    raw = read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=True)
    assert raw.columns["title"].to_pylist() == ["aé", '3" nail']


def test_backslashes_before_quotes(write):
    path = write("items.csv", "item,title", '1,"19\\" Monitor, black"', '2,"The \\"Best\\" of it"', "3,c")
    raw = read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=True)
    assert raw.columns["title"].to_pylist() == ['19" Monitor, black', 'The "Best" of it', "c"]
    assert raw.place(2) == f"{path}, line 4"
    path = write("paths.csv", "item,title", '1,"C:\\"', '2,"a ""b"" c"')
    raw = read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=True)
    assert raw.columns["title"].to_pylist() == ["C:\\", 'a "b" c']


def test_a_quote_that_is_never_closed(write):
    path = write("items.csv", "item,title", "1,a", '2,"b', "3,c", "4,d")
    with pytest.raises(DataError, match=r"items\.csv, line 3: a quote that opens here is never closed"):
        read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=True)
    path = write("good.csv", "item,title", "1,a", '2,"b', 'c"')
    raw = read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=True)
    assert raw.columns["title"].to_pylist() == ["a", "b\nc"]


def test_no_line_of_names(write):
    path = write("clicks.csv", "1,2014-04-07T10:16:40.277Z,i1,0", "2,2014-04-07T10:16:50.277Z,i2,0")
    with pytest.raises(DataError, match=r"line 1: no line with the names of the columns, but 1, 2014-.*i1, 0: write"):
        read_columns(path, WANTED, delimiter=",", bad_rows="error", quoted=True)


@pytest.mark.parametrize("lines", [["item,title"], ["", ""]])
def test_no_rows(write, lines):
    with pytest.raises(DataError, match="holds no rows"):
        read_columns(write("items.csv", *lines), WANTED, delimiter=",", bad_rows="error", quoted=True)
