"""Delimited text, read by pyarrow in parallel."""

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from cluster.errors import DataError
from data_prep.config import BadRows
from data_prep.rawfiles import (
    DROP_HINT,
    UTF8,
    Encoding,
    RawTable,
    check_text,
    empty,
    find_column,
    open_raw,
    text_lines,
)


def read_header(path: Path, delimiter: str) -> list[str]:
    """Column names of the first line.

    Raises:
        DataError: the file is absent, empty, truncated or not UTF-8.
    """
    check_text(path)
    first = next(text_lines(path), None)
    if first is None:
        raise empty(path)
    return [name.strip().strip('"') for name in first[1].removeprefix("\ufeff").split(delimiter)]


def read_columns(
    path: Path,
    wanted: Mapping[str, Sequence[str]],
    *,
    delimiter: str,
    bad_rows: BadRows,
    quoted: bool,
    typed: bool = False,
) -> RawTable:
    """Read the wanted columns of a file with a header, as strings.

    Args:
        path: UTF-8 text, plain or gzip.
        wanted: output column to the names it may have in the file, best first.
        delimiter: one character between fields.
        bad_rows: whether a row with too few or too many fields stops or is dropped.
        quoted: fields may stand in double quotes and then hold delimiters and line breaks.
        typed: header names end in ``:type`` (RecBole).

    Raises:
        DataError: see :func:`read_header`; a column is missing, a row is malformed, or there is no row.
    """
    header = read_header(path, delimiter)
    names = [name.split(":")[0] for name in header] if typed else header
    found = {column: names.index(find_column(path, names, options)) for column, options in wanted.items()}
    raw = parse(path, width=len(header), delimiter=delimiter, bad_rows=bad_rows, quoted=quoted, header=True)
    return RawTable(raw.columns.select(list(found.values())).rename_columns(list(found)), raw.place, raw.malformed)


def parse(
    path: Path,
    *,
    width: int,
    delimiter: str,
    bad_rows: BadRows,
    header: bool,
    quoted: bool = False,
    encoding: Encoding = UTF8,
) -> RawTable:
    """Read all ``width`` columns, named by number, as strings; see :func:`read_columns`."""
    names = [str(number) for number in range(width)]
    malformed = 0

    def skip(row: pa.csv.InvalidRow) -> str:
        nonlocal malformed
        malformed += 1
        return "skip"

    try:
        with open_raw(path) as stream:
            table = pa.csv.read_csv(
                stream,
                read_options=pa.csv.ReadOptions(column_names=names, skip_rows=int(header), encoding=encoding),
                parse_options=pa.csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char='"' if quoted else False,
                    newlines_in_values=quoted,
                    invalid_row_handler=skip,
                ),
                convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            raise empty(path) from error
        raise DataError(f"{path}: cannot be parsed ({' '.join(str(error).split())}): mend the file") from error
    rows = partial(_rows, path, delimiter, header, quoted, encoding)
    if malformed and bad_rows == "error":
        line, fields = next((line, fields) for line, fields in rows() if len(fields) != width)
        raise DataError(f"{path}, line {line}: {len(fields)} fields where {width} are expected: {DROP_HINT}")
    if not table.num_rows:
        raise empty(path)

    def place(row: int) -> str:
        return f"{path}, line {next(islice(rows(), row, None))[0]}"

    return RawTable(table, place, malformed)


def _rows(
    path: Path, delimiter: str, header: bool, quoted: bool, encoding: Encoding
) -> Iterator[tuple[int, list[str]]]:
    """First line number and fields of every row, read slowly: only to locate a fault in a message."""
    if not quoted:
        lines = ((number, line.split(delimiter)) for number, line in text_lines(path, encoding))
        yield from islice(lines, int(header), None)
        return
    csv.field_size_limit(sys.maxsize)
    with io.TextIOWrapper(open_raw(path), encoding=encoding, newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        if header:
            next(reader, None)
        start = reader.line_num + 1
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
