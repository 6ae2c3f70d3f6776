"""Raw text files: opened plain or gzipped, checked as text, columns found by name, rows located for messages."""

import codecs
import difflib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from cluster.errors import DataError

Encoding = str
UTF8: Encoding = "utf-8"
LATIN1: Encoding = "iso-8859-1"
DROP_HINT = "mend it or add --bad-rows drop"

_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class RawTable:
    """Rows as read, all columns strings (timestamps may be floats), with the way back to the file.

    ``place(row)`` names file and line (or row) of a table row; ``malformed`` counts rows that reading dropped.
    """

    columns: pa.Table
    place: Callable[[int], str]
    malformed: int = 0


def open_raw(path: Path) -> BinaryIO:
    """Open a file for reading bytes, unpacking gzip by its magic number whatever the name says.

    Raises:
        DataError: the file is absent or cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == _GZIP_MAGIC
        return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the path") from error


def check_text(path: Path, encoding: Encoding = UTF8) -> None:
    """Read the file once as a stream, so that the parsers after it meet whole, decodable text.

    Raises:
        DataError: the file is absent, empty, a damaged or truncated gzip, or not text in ``encoding``.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    line, offset, pending, block = 1, 0, 0, b""
    try:
        with open_raw(path) as stream:
            while block := stream.read(_BLOCK_BYTES):
                pending = len(decoder.getstate()[0])
                decoder.decode(block)
                line += block.count(b"\n")
                offset += len(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        byte = offset - (pending if block else len(error.object)) + error.start
        bad_line = line + error.object[: error.start].count(b"\n")
        raise DataError(
            f"{path}, line {bad_line}: not UTF-8 text at byte {byte}: convert the file to UTF-8 (iconv)"
        ) from error
    except EOFError as error:
        raise DataError(f"{path}: truncated gzip: fetch the file again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip ({error}): fetch the file again") from error
    if offset == 0:
        raise empty(path)


def empty(path: Path) -> DataError:
    """The error for a file without rows."""
    return DataError(f"{path}: holds no rows: give a file with data")


def text_lines(path: Path, encoding: Encoding = UTF8) -> Iterator[tuple[int, str]]:
    """1-based numbers and texts of the lines that are not empty."""
    with io.TextIOWrapper(open_raw(path), encoding=encoding, newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            if text := line.rstrip("\r\n"):
                yield number, text


def find_column(path: Path, columns: Sequence[str], names: Sequence[str]) -> str:
    """The first of ``names`` that is among ``columns``.

    Raises:
        DataError: none is; the message lists the columns found and the nearest one.
    """
    for name in names:
        if name in columns:
            return name
    near = next((c for name in names for c in difflib.get_close_matches(name, columns, n=1)), None)
    hint = f"rename `{near}` to `{names[0]}`" if near else f"add a column `{names[0]}`"
    raise DataError(f"{path}: no column `{'` or `'.join(names)}` among {', '.join(columns)}: {hint}")
