"""Raw text files: opened plain or gzipped, columns found by name, faults located by line."""

import difflib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from cluster.errors import DataError
from data_prep.config import BadRows

UTF8, LATIN1 = "utf-8", "iso-8859-1"
DROP_HINT = "fix it or add --bad-rows drop"
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class RawTable:
    """Rows as read, all columns strings (timestamps may be floats), with the way back to the file.

    ``place(row)`` names file and line (or row) of a table row; ``malformed`` counts rows that reading dropped.
    """

    columns: pa.Table
    place: Callable[[int], str]
    malformed: int = 0


Reader = Callable[[Path, Path, BadRows], tuple[RawTable, RawTable]]
"""Reads a file of interactions (user_id, item_id, timestamp) and one of items (item_id, title).

A row that cannot be read stops it with a DataError; with bad rows dropped it is left out and counted. Ids, times,
titles and repetitions are checked afterwards."""


@contextmanager
def readable(path: Path, encoding: str = UTF8) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, unpacking gzip by its magic number whatever the name says.

    Raises:
        DataError: the file is absent or a damaged or truncated gzip, or what reads it meets no text in ``encoding``.
    """
    try:
        with path.open("rb") as stream:
            packed = stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        with path.open("rb") as stream:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if packed else stream
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip ({error}): fetch the file again") from error
    except EOFError as error:
        raise DataError(f"{path}: truncated gzip: fetch the file again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, pa.ArrowInvalid) as error:
        if place := _wrong_byte(path, encoding):
            raise DataError(f"{path}, {place}: convert the file to UTF-8 (iconv)") from error
        raise


def _wrong_byte(path: Path, encoding: str) -> str | None:
    offset = 0
    with readable(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                return f"line {number}: not UTF-8 text at byte {offset + error.start}"
            offset += len(line)
    return None


def empty(path: Path) -> DataError:
    """The error for a file without rows."""
    return DataError(f"{path}: holds no rows: give a file with data")


def text_lines(path: Path, encoding: str = UTF8) -> Iterator[tuple[int, str]]:
    """1-based numbers and texts of the lines that are not empty."""
    with readable(path, encoding) as stream:
        for number, line in enumerate(io.TextIOWrapper(stream, encoding=encoding, newline="\n"), start=1):
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
