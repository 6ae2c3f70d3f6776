"""Amazon reviews and metadata: JSON lines, plain or gzip, with the field names of 2014, 2018 or 2023."""

import ast
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from cluster.console import say
from cluster.errors import DataError
from data_prep.config import BadRows
from data_prep.readers.rawfiles import DROP_HINT, RawTable, empty, find_column, readable, text_lines
from data_prep.readers.sniff import sniff

INTERACTIONS = {
    "user_id": ["reviewerID", "user_id"],
    "item_id": ["parent_asin", "asin"],  # 2023 has both; its metadata is keyed by the parent
    "timestamp": ["unixReviewTime", "timestamp"],
}
ITEMS = {"item_id": ["parent_asin", "asin"], "title": ["title"]}
LONGEST_RECORD = 1 << 26  # bytes
HALF_CHARACTER = re.compile("[\ud800-\udfff]")

Wanted = dict[str, list[str]]


def read(interactions: Path, items: Path, bad_rows: BadRows) -> tuple[RawTable, RawTable]:
    """Read reviews (user, item, time) and metadata (item, title).

    Raises:
        DataError: a file is absent, empty, not UTF-8, a truncated gzip, lacks a field, or has a line that is not JSON.
    """
    return _read(interactions, INTERACTIONS, bad_rows), _read(items, ITEMS, bad_rows)


def _read(path: Path, wanted: Wanted, bad_rows: BadRows) -> RawTable:
    try:
        table, malformed = _parse_fast(path, wanted), 0
    except pa.ArrowInvalid:
        table, malformed = _parse_slowly(path, wanted, bad_rows)
    if not table.num_rows:
        raise DataError(f"{path}: no line is a JSON object: give a file of JSON lines") if malformed else empty(path)
    for column, names in wanted.items():
        if table[column].null_count == table.num_rows:
            find_column(path, list(next(filter(None, (_record(line) for _, line in _json_lines(path))))), names)
    return RawTable(table, lambda row: f"{path}, line {next(islice(_json_lines(path), row, None))[0]}", malformed)


def _parse_fast(path: Path, wanted: Wanted) -> pa.Table:
    kinds = {
        name: pa.float64() if column == "timestamp" else pa.string()
        for column, names in wanted.items()
        for name in names
    }
    with readable(path) as stream:
        table = pa.json.read_json(
            stream,
            read_options=pa.json.ReadOptions(block_size=LONGEST_RECORD),
            parse_options=pa.json.ParseOptions(explicit_schema=pa.schema(kinds), unexpected_field_behavior="ignore"),
        )
    return pa.table({column: pc.coalesce(*map(table.column, names)) for column, names in wanted.items()})


def _parse_slowly(path: Path, wanted: Wanted, bad_rows: BadRows) -> tuple[pa.Table, int]:
    """Line by line, for files that pyarrow refuses: it names no line and cannot step over a bad one."""
    columns: dict[str, list[str | None]] = {column: [] for column in wanted}
    malformed = mended = 0
    for number, line in _json_lines(path):
        record = _record(line)
        if record is None and bad_rows == "error":
            raise DataError(f"{path}, line {number}: not a JSON object: {DROP_HINT}")
        if record is None:
            malformed += 1
            continue
        for column, names in wanted.items():
            value = next((record[name] for name in names if record.get(name) is not None), None)
            text = str(value) if isinstance(value, str | int | float) else None
            mended += bool(text and HALF_CHARACTER.search(text))
            columns[column].append(HALF_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", text) if text else text)
    if mended:
        say(f"prepare: {path}: {mended:,} texts with half of a character (a lone surrogate), which is replaced")
    return pa.table({column: pa.array(values, pa.string()) for column, values in columns.items()}), malformed


def _json_lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in text_lines(path, sniff(path).encoding) if line.strip())


def _record(line: str) -> dict[str, Any] | None:
    """The object on a line, or none; the metadata of 2014 was published as Python literals, not as JSON."""
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError):
            record = parse(line)
            return record if isinstance(record, dict) else None
    return None
