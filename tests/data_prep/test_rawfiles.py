"""Opening, checking and naming of raw text."""

import gzip

import pytest

from cluster.errors import DataError
from data_prep.rawfiles import _BLOCK_BYTES, check_text, find_column, open_raw, text_lines


def test_gzip_is_known_by_its_content(write):
    path = write("log.txt", content=gzip.compress(b"a\n\nb\r\n"))
    assert list(text_lines(path)) == [(1, "a"), (3, "b")]
    with open_raw(path) as stream:
        assert stream.read() == b"a\n\nb\r\n"


def test_wrong_byte_is_located_by_line_and_offset(write):
    path = write("log.csv", content=b"ab\ncd\ne\xffg\n")
    with pytest.raises(DataError, match=r"log\.csv, line 3: not UTF-8 text at byte 7"):
        check_text(path)


def test_wrong_byte_after_a_character_cut_by_the_block_end(write):
    start = b"x\n" + b"y" * (_BLOCK_BYTES - 3) + "é".encode()  # é stands half in the first block
    check_text(write("good.csv", content=start + b"\n"))
    with pytest.raises(DataError, match=rf"line 3: not UTF-8 text at byte {len(start) + 1}:"):
        check_text(write("bad.csv", content=start + b"\n\xff"))
    with pytest.raises(DataError, match=rf"line 2: not UTF-8 text at byte {len(start) - 2}:"):
        check_text(write("ends.csv", content=start[:-1]))


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_gzip(write, keep):
    packed = gzip.compress("\n".join(str(n * n) for n in range(5_000)).encode())
    path = write("log.gz", content=packed[: int(len(packed) * keep)])
    with pytest.raises(DataError, match=r"log\.gz: truncated gzip"):
        check_text(path)


def test_damaged_gzip(write):
    packed = bytearray(gzip.compress(b"abc" * 1000))
    packed[-6] ^= 0xFF  # checksum
    with pytest.raises(DataError, match=r"log\.gz: damaged gzip"):
        check_text(write("log.gz", content=bytes(packed)))


def test_empty_and_absent_files(write, tmp_path):
    with pytest.raises(DataError, match="holds no rows"):
        check_text(write("log.csv", content=b""))
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        check_text(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        check_text(tmp_path)


def test_latin1_takes_any_byte(write):
    check_text(write("movies.dat", content=b"caf\xe9"), "iso-8859-1")


def test_column_names(tmp_path):
    assert find_column(tmp_path, ["name", "title"], ["title", "name"]) == "title"
    with pytest.raises(DataError, match="no column `timestamp` among user_id, timestmp: rename `timestmp`"):
        find_column(tmp_path, ["user_id", "timestmp"], ["timestamp"])
    with pytest.raises(DataError, match="add a column `timestamp`"):
        find_column(tmp_path, ["a", "b"], ["timestamp"])
