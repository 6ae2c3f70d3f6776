"""Amazon reviews and metadata: JSON lines, plain or gzip, with the field names of 2014, 2018 or 2023."""

import ast
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

from cluster.errors import DataError
from data_prep.config import BadRows
from data_prep.rawfiles import DROP_HINT, RawTable, check_text, empty, find_column, open_raw, text_lines

INTERACTIONS = {
    "user_id": ["reviewerID", "user_id"],
    "item_id": ["parent_asin", "asin"],  # 2023 has both; its metadata is keyed by the parent
    "timestamp": ["unixReviewTime", "timestamp"],
}
ITEMS = {"item_id": ["parent_asin", "asin"], "title": ["title"]}
BLOCK_BYTES = 1 << 26  # a record may not be longer
SAMPLE_LINES = 1_000

Fields = dict[str, str]  # output column: field name in the file


def read(interactions: Path, items: Path, bad_rows: BadRows) -> tuple[RawTable, RawTable]:
    """Read reviews (user, item, time) and metadata (item, title).

    Raises:
        DataError: a file is absent, empty, not UTF-8, a truncated gzip, lacks a field, or has a line that is not JSON.
    """
    return _read(interactions, INTERACTIONS, bad_rows), _read(items, ITEMS, bad_rows)


def _read(path: Path, wanted: dict[str, list[str]], bad_rows: BadRows) -> RawTable:
    check_text(path)
    present = _field_names(path)
    fields = {column: find_column(path, present, names) for column, names in wanted.items()}
    try:
        table, malformed = _parse_fast(path, fields), 0
    except pa.ArrowInvalid:
        table, malformed = _parse_slowly(path, fields, bad_rows)
    if not table.num_rows:
        raise empty(path)

    def place(row: int) -> str:
        return f"{path}, line {next(islice(_json_lines(path), row, None))[0]}"

    return RawTable(table, place, malformed)


def _field_names(path: Path) -> list[str]:
    """Fields of the first records: the first alone may lack an optional one, such as the title."""
    names: dict[str, None] = {}
    for _, line in islice(_json_lines(path), SAMPLE_LINES):
        names.update(dict.fromkeys(_record(line) or {}))
    if not names:
        number, _ = next(_json_lines(path), (1, ""))
        raise DataError(f"{path}, line {number}: not a JSON object: give a file of JSON lines")
    return list(names)


def _parse_fast(path: Path, fields: Fields) -> pa.Table:
    kinds = {name: pa.float64() if column == "timestamp" else pa.string() for column, name in fields.items()}
    with open_raw(path) as stream:
        table = pa.json.read_json(
            stream,
            read_options=pa.json.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=pa.json.ParseOptions(explicit_schema=pa.schema(kinds), unexpected_field_behavior="ignore"),
        )
    return table.rename_columns(list(fields))


def _parse_slowly(path: Path, fields: Fields, bad_rows: BadRows) -> tuple[pa.Table, int]:
    """Line by line, for files that pyarrow refuses: it names no line and cannot step over a bad one."""
    columns: dict[str, list[str | None]] = {column: [] for column in fields}
    malformed = 0
    for number, line in _json_lines(path):
        record = _record(line)
        if record is None and bad_rows == "error":
            raise DataError(f"{path}, line {number}: not a JSON object: {DROP_HINT}")
        if record is None:
            malformed += 1
            continue
        for column, name in fields.items():
            value = record.get(name)
            columns[column].append(str(value) if isinstance(value, str | int | float) else None)
    return pa.table({column: pa.array(values, pa.string()) for column, values in columns.items()}), malformed


def _json_lines(path: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in text_lines(path) if line.strip())


def _record(line: str) -> dict[str, Any] | None:
    """The object on a line, or none; the metadata of 2014 was published as Python literals, not as JSON."""
    try:
        record = ast.literal_eval(line) if line.startswith("{'") else json.loads(line)
    except (ValueError, SyntaxError):
        return None
    return record if isinstance(record, dict) else None
