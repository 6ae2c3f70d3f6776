"""CSV and Parquet sources."""

import gzip
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError
from data_prep.readers.tabular import read_csv, read_parquet

ITEMS = pa.table({"item_id": [5], "title": ["Pen"]})


def test_csv_plain_and_gzip(write):
    log = write("log.csv", content=gzip.compress(b"user_id,item_id,timestamp\nu,5,1.5\n"))
    interactions, titles = read_csv(log, write("items.csv", "item_id,title", '5,"Pen, red"'), "error")
    assert interactions.columns.to_pydict() == {"user_id": ["u"], "item_id": ["5"], "timestamp": ["1.5"]}
    assert titles.columns.to_pydict() == {"item_id": ["5"], "title": ["Pen, red"]}


@pytest.mark.parametrize(
    "time", [7, 7.0, "7.0", datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC)], ids=["int", "float", "text", "time"]
)
def test_parquet_types(tmp_path, time):
    pq.write_table(pa.table({"timestamp": [time], "item_id": [5], "user_id": ["u"], "more": [0]}), tmp_path / "log")
    pq.write_table(ITEMS, tmp_path / "items")
    interactions, titles = read_parquet(tmp_path / "log", tmp_path / "items", "error")
    row = interactions.columns.to_pylist()[0]
    assert (row["user_id"], row["item_id"], float(row["timestamp"])) == ("u", "5", 7.0)
    assert titles.columns.to_pydict() == {"item_id": ["5"], "title": ["Pen"]}
    assert interactions.place(0) == f"{tmp_path / 'log'}, row 1"


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (pa.array([1537402600123456789]), 1537402600123456789),
        (pa.array([1537402600123456789], pa.timestamp("ns")), 1537402600.123456),
        (pa.array([17794], pa.date32()), 17794 * 86400),
        (pa.array([Decimal("7.5")]), 7.5),
        (pa.array(["7.5"]).dictionary_encode(), 7.5),
        (pa.array([2**63], pa.uint64()), 2**63),
    ],
    ids=["nanoseconds", "nanosecond times", "dates", "decimals", "categories", "unsigned"],
)
def test_every_type_that_is_a_time_or_a_number_is_read(tmp_path, times, seconds):
    ids = pa.array(["5"]).dictionary_encode()
    pq.write_table(pa.table({"timestamp": times, "item_id": ids, "user_id": [1.0]}), tmp_path / "log")
    pq.write_table(ITEMS, tmp_path / "items")
    interactions, _ = read_parquet(tmp_path / "log", tmp_path / "items", "error")
    row = interactions.columns.to_pylist()[0]
    assert float(row["timestamp"]) == pytest.approx(seconds, abs=1e-6)
    assert (row["item_id"], row["user_id"]) == ("5", "1")


def test_parquet_faults(tmp_path, write):
    pq.write_table(ITEMS, tmp_path / "items")
    faults = {
        "not a complete Parquet file": write("text", "user_id,item_id,timestamp"),
        "no column `user_id` among item_id, title": tmp_path / "items",
        "column `item_id` of type list<element: int64> is unusable": tmp_path / "lists",
        "holds no rows": tmp_path / "none",
    }
    pq.write_table(pa.table({"user_id": ["u"], "item_id": [[1]], "timestamp": [1]}), tmp_path / "lists")
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["1"], "timestamp": [1]}).slice(0, 0), tmp_path / "none")
    for message, path in faults.items():
        with pytest.raises(DataError, match=message):
            read_parquet(path, tmp_path / "items", "error")
