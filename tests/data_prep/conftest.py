"""Fixtures of the preparation tests."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from data_prep.readers.rawfiles import RawTable

Write = Callable[..., Path]
Raw = Callable[..., RawTable]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a raw file from its lines (or bytes)."""

    def make(name: str, *lines: str, content: bytes | None = None, encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding) if content is None else content)
        return path

    return make


@pytest.fixture
def raw() -> Raw:
    """Builds a raw table from rows, as a reader would; row n is said to stand on line n + 2 of ``raw.csv``."""

    def make(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> RawTable:
        table = pa.table(
            {name: pa.array(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True)}
        )
        return RawTable(pa.table({n: table[n] for n in columns}), lambda row: f"raw.csv, line {row + 2}")

    return make
