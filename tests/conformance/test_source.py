"""Our own readers pass the check of sources; readers that break a promise are named."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from cluster.storage import read_manifest
from conformance import check_source
from conformance.promise import ConformanceError
from data_prep.config import READERS, PrepareConfig
from data_prep.prepare import prepare
from data_prep.readers.rawfiles import RawTable
from data_prep.readers.tabular import read_csv

LOG = [("u1", "i1", "10"), ("u1", "i2", "20"), ("u2", "i1", "15"), ("u2", "i3", "30")]
ITEMS = [("i1", "Red Pen"), ("i2", "Blue Pen"), ("i3", "Paper")]


def lines(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, tuple[Path, Path]]:
    """Both files in every format that has a reader of ours, and in one that has not."""
    log, items = tmp_path / "log", tmp_path / "items"
    columns = ("user_id", "item_id", "timestamp"), ("item_id", "title")
    for path, names, rows in zip((log, items), columns, (LOG, ITEMS), strict=True):
        typed = [f"{name}:token" for name in names]
        pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), path.with_suffix(".parquet"))
        lines(path.with_suffix(".csv"), *map(",".join, (names, *rows)))
        lines(path.with_suffix(".tsv"), *map("\t".join, (typed, *rows)))
        lines(path.with_suffix(".bars"), *map("|".join, rows))
    lines(log.with_suffix(".dat"), *("::".join([user, item, "5", time]) for user, item, time in LOG))
    lines(items.with_suffix(".dat"), *("::".join([item, title, "Office"]) for item, title in ITEMS))
    reviews = [{"reviewerID": user, "asin": item, "unixReviewTime": int(time)} for user, item, time in LOG]
    lines(log.with_suffix(".json"), *map(json.dumps, reviews))
    lines(items.with_suffix(".json"), *(json.dumps({"asin": item, "title": title}) for item, title in ITEMS))
    endings = {
        "csv": "csv",
        "parquet": "parquet",
        "recbole": "tsv",
        "movielens": "dat",
        "amazon": "json",
        "bars": "bars",
    }
    return {name: (log.with_suffix(f".{end}"), items.with_suffix(f".{end}")) for name, end in endings.items()}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_conforms(files: dict[str, tuple[Path, Path]], name: str) -> None:
    check_source(name, *files[name])


def test_the_reader_of_the_documents_conforms_and_prepares_a_data_set(
    files: dict[str, tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (tmp_path / "my_readers.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    check_source("my_readers:read", *files["bars"])
    longer = [f"u{user}|i{1 + (user + step) % 3}|{10 * step + user}" for step in range(5) for user in range(4)]
    log, items = lines(tmp_path / "longer.bars", *longer), files["bars"][1]
    made = prepare(PrepareConfig(source="my_readers:read", interactions=log, items=items, output=tmp_path / "data"))
    manifest = read_manifest(made)
    assert (manifest.config["source"], manifest.counts["interactions"]) == ("my_readers:read", 20)


def numbers_as_ids(interactions: Path, items: Path, bad_rows: str) -> tuple[RawTable, RawTable]:
    log, titles = read_csv(interactions, items, "error")
    return RawTable(log.columns.set_column(0, "user_id", pa.array([1, 1, 2, 2])), log.place), titles


def no_titles(interactions: Path, items: Path, bad_rows: str) -> tuple[RawTable, RawTable]:
    log, titles = read_csv(interactions, items, "error")
    return log, RawTable(titles.columns.drop_columns("title"), titles.place)


def another_order_each_time(interactions: Path, items: Path, bad_rows: str) -> tuple[RawTable, RawTable]:
    log, titles = read_csv(interactions, items, "error")
    return RawTable(log.columns.take(next(ORDERS)), log.place), titles


def orders() -> Iterator[list[int]]:
    while True:
        yield [0, 1, 2, 3]
        yield [3, 2, 1, 0]


ORDERS = orders()


def every_row_in_one_place(interactions: Path, items: Path, bad_rows: str) -> tuple[RawTable, RawTable]:
    log, titles = read_csv(interactions, items, "error")
    return RawTable(log.columns, lambda row: str(interactions)), titles


def ids_of_another_kind(interactions: Path, items: Path, bad_rows: str) -> tuple[RawTable, RawTable]:
    log, titles = read_csv(interactions, items, "error")
    other = pa.array([f"0{item}" for item in titles.columns["item_id"].to_pylist()])
    return log, RawTable(titles.columns.set_column(0, "item_id", other), titles.place)


def tracebacks_for_users(interactions: Path, items: Path, bad_rows: str) -> tuple[RawTable, RawTable]:
    interactions.read_text(), items.read_text()
    return read_csv(interactions, items, "error")


def takes_nothing_for_a_log(interactions: Path, items: Path, bad_rows: str) -> tuple[RawTable, RawTable]:
    try:
        return read_csv(interactions, items, "error")
    except DataError:
        nothing = pa.table({name: pa.array([], pa.string()) for name in ("user_id", "item_id", "timestamp")})
        return RawTable(nothing, str), RawTable(nothing, str)


@pytest.mark.parametrize(
    ("reader", "broken"),
    [
        (numbers_as_ids, r"gives user_id of interactions as strings \(timestamps may be float64\), not int64"),
        (no_titles, "gives items with the columns item_id, title; not title"),
        (another_order_each_time, "reads the same files the same way again"),
        (every_row_in_one_place, "says of every row of interactions another place"),
        (
            ids_of_another_kind,
            "gives what prepare takes; it says: .*interactions are with items that are not in the items file",
        ),
        (tracebacks_for_users, "raises a DataError for absent-log.csv, not FileNotFoundError"),
        (takes_nothing_for_a_log, "raises a DataError for absent-log.csv"),
    ],
)
def test_a_reader_that_breaks_a_promise_is_named(
    files: dict[str, tuple[Path, Path]], reader: object, broken: str
) -> None:
    with pytest.raises(ConformanceError, match=f"{reader.__name__}: {broken}"):
        check_source(f"{__name__}:{reader.__name__}", *files["csv"])
