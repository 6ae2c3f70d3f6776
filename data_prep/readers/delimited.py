"""Delimited text, read by pyarrow in parallel."""

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from cluster.errors import DataError
from data_prep.config import BadRows
from data_prep.readers.rawfiles import DROP_HINT, RawTable, empty, find_column, readable, text_lines
from data_prep.readers.sniff import TextKind, sniff


def read_columns(
    path: Path,
    wanted: Mapping[str, Sequence[str]],
    *,
    delimiter: str,
    bad_rows: BadRows,
    quoted: bool,
    typed: bool = False,
    header: Sequence[str] = (),
) -> RawTable:
    """Read the wanted columns, as strings.

    Args:
        path: text, plain or gzip.
        wanted: output column to the names it may have in the file, best first.
        delimiter: one character between fields.
        bad_rows: whether a row with too few or too many fields stops or is dropped.
        quoted: fields may stand in double quotes and then hold delimiters and line breaks.
        typed: header names end in ``:type`` (RecBole).
        header: names of all columns of a file that has no line with them.

    Raises:
        DataError: the file is absent, empty or truncated, lacks a column or the line of names, leaves a quote open, or
            has a malformed row or none.
    """
    kind, skipped = sniff(path), 0 if header else 1
    names = list(header) or _header(path, delimiter, typed, kind.encoding)
    if not header and not set(names) & {name for options in wanted.values() for name in options}:
        _check_names(path, names)
    found = {column: names.index(find_column(path, names, options)) for column, options in wanted.items()}
    table, malformed = _parse(path, len(names), skipped, delimiter, quoted, kind)
    rows = partial(_rows, path, skipped, delimiter, quoted, kind)
    if quoted:
        _check_closed(table, partial(rows, strict=True))
    if malformed and bad_rows == "error":
        line, fields = next((line, fields) for line, fields in rows() if len(fields) != len(names))
        raise DataError(f"{path}, line {line}: {len(fields)} fields where {len(names)} are expected: {DROP_HINT}")
    if not table.num_rows:
        raise empty(path)
    return RawTable(
        table.select(list(found.values())).rename_columns(list(found)),
        lambda row: f"{path}, line {next(islice(rows(), row, None))[0]}",
        malformed,
    )


def _header(path: Path, delimiter: str, typed: bool, encoding: str) -> list[str]:
    _, line = next(text_lines(path, encoding), (0, ""))
    if not line:
        raise empty(path)
    names = [name.strip().strip('"') for name in line.removeprefix("\ufeff").split(delimiter)]
    return [name.split(":")[0] for name in names] if typed else names


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Tell a file without a line of names from one with other names."""
    if any(re.fullmatch(r"[\d.:TZ +-]+", name) for name in names):
        found = ", ".join(names)[:80]
        raise DataError(f"{path}, line 1: no line with the names of the columns, but {found}: write the names above it")


def _check_closed(table: pa.Table, strictly: Callable[[], Iterator[object]]) -> None:
    """Read again strictly where the last row holds a line break: it may have swallowed the file after an open quote."""
    if table.num_rows and any("\n" in (column[-1].as_py() or "") for column in table.columns):
        for _ in strictly():
            pass


def _parse(path: Path, width: int, skipped: int, delimiter: str, quoted: bool, kind: TextKind) -> tuple[pa.Table, int]:
    """All columns, named by number, as strings; and how many rows have another number of fields."""
    names = [str(number) for number in range(width)]
    malformed = 0

    def skip(row: pa.csv.InvalidRow) -> str:
        nonlocal malformed
        malformed += 1
        return "skip"

    try:
        with readable(path, kind.encoding) as stream:
            table = pa.csv.read_csv(
                stream,
                read_options=pa.csv.ReadOptions(column_names=names, skip_rows=skipped, encoding=kind.encoding),
                parse_options=pa.csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char='"' if quoted else False,
                    escape_char="\\" if quoted and kind.escaped else False,
                    newlines_in_values=quoted,
                    invalid_row_handler=skip,
                ),
                convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            raise empty(path) from error
        raise DataError(f"{path}: cannot be parsed ({' '.join(str(error).split())}): fix the file") from error
    return table, malformed


def _rows(
    path: Path, skipped: int, delimiter: str, quoted: bool, kind: TextKind, strict: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """First line number and fields of every row, read slowly: only to locate a fault in a message."""
    csv.field_size_limit(sys.maxsize)
    with readable(path, kind.encoding) as stream:
        text = io.TextIOWrapper(stream, encoding=kind.encoding, newline="")
        reader = csv.reader(
            text,
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            escapechar="\\" if quoted and kind.escaped else None,
            strict=strict,
        )
        start = 1
        try:
            for number, fields in enumerate(reader):
                if fields and number >= skipped:
                    yield start, fields
                start = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {start}: a quote that opens here is never closed ({error})") from error
