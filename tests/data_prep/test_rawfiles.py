"""Opening, checking and naming of raw text."""

import gzip
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from cluster.errors import DataError
from data_prep.readers.delimited import read_columns
from data_prep.readers.rawfiles import find_column, readable, text_lines

read_csv = partial(read_columns, wanted={"a": ["a"]}, delimiter=",", bad_rows="error", quoted=True)


READ_AT_ONCE = 8192  # bytes that a text stream decodes in one go


def lines(path: Path, encoding: str = "utf-8") -> list[tuple[int, str]]:
    return list(text_lines(path, encoding))


def test_gzip_is_known_by_its_content(write):
    path = write("log.txt", content=gzip.compress(b"a\n\nb\r\n"))
    assert lines(path) == [(1, "a"), (3, "b")]
    with readable(path) as stream:
        assert stream.read() == b"a\n\nb\r\n"


def test_wrong_byte_is_located_by_line_and_offset(write):
    with pytest.raises(DataError, match=r"log\.csv, line 3: not UTF-8 text at byte 6: convert the file to UTF-8"):
        lines(write("log.csv", content=b"a\nbc\ne\xffg\n"))


def test_wrong_byte_after_a_character_cut_by_the_end_of_what_is_read_at_once(write):
    start = b"x\n" + b"y" * (READ_AT_ONCE - 3) + "é".encode()  # é stands half in the first read
    assert len(lines(write("good.csv", content=start + b"\n"))) == 2
    with pytest.raises(DataError, match=rf"line 3: not UTF-8 text at byte {len(start) + 1}:"):
        lines(write("bad.csv", content=start + b"\n\xff"))
    with pytest.raises(DataError, match=rf"line 2: not UTF-8 text at byte {len(start) - 2}:"):
        lines(write("ends.csv", content=start[:-1]))


@pytest.mark.parametrize("read", [lines, read_csv])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_gzip(write, keep, read):
    packed = gzip.compress("\n".join(["a", *(str(n * n) for n in range(5_000))]).encode())
    path = write("log.gz", content=packed[: int(len(packed) * keep)])
    with pytest.raises(DataError, match=r"log\.gz: truncated gzip"):
        read(path)


@pytest.mark.parametrize("read", [lines, read_csv])
def test_damaged_gzip(write, read):
    packed = bytearray(gzip.compress(b"a\nbc\n" * 1000))
    packed[-6] ^= 0xFF  # checksum
    with pytest.raises(DataError, match=r"log\.gz: damaged gzip"):
        read(write("log.gz", content=bytes(packed)))


def test_empty_and_absent_files(write, tmp_path):
    with pytest.raises(DataError, match="holds no rows"):
        read_csv(write("log.csv", content=b""))
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_csv(tmp_path)


def test_what_a_parser_refuses_in_good_text_is_left_to_the_caller(write):
    with pytest.raises(pa.ArrowInvalid), readable(write("log.csv", "a,b", "c")) as stream:
        pa.csv.read_csv(stream)


def test_latin1_takes_any_byte(write):
    assert lines(write("movies.dat", content=b"caf\xe9"), "iso-8859-1") == [(1, "café")]


def test_column_names(tmp_path):
    assert find_column(tmp_path, ["name", "title"], ["title", "name"]) == "title"
    with pytest.raises(DataError, match="no column `timestamp` among user_id, timestmp: rename `timestmp`"):
        find_column(tmp_path, ["user_id", "timestmp"], ["timestamp"])
    with pytest.raises(DataError, match="add a column `timestamp`"):
        find_column(tmp_path, ["a", "b"], ["timestamp"])
