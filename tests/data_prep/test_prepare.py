"""The verb prepare, end to end on small files."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import ConfigError, DataError, OutputError, UserError
from cluster.storage import MANIFEST_FILE, read_manifest
from data_prep.config import PrepareConfig, SyntheticConfig
from data_prep.prepare import prepare
from data_prep.reading import shard_rows
from data_prep.schema import ITEMS, SEQUENCES, sequence_files
from data_prep.splits import NAMES
from dllm2rec import main

HEADER = "user_id,item_id,timestamp"
LOG = [f"u{user},i{(user + step) % 6},{10 * step + user}" for step in range(5) for user in range(4)]
ITEM_LINES = [f"i{item},Title &amp;amp; {item}" for item in range(7)]


@pytest.fixture
def config(write, tmp_path):
    """Builds a csv config over the good log, with lines changed or added."""

    def make(log=(HEADER, *LOG), items=("item_id,title", *ITEM_LINES), **settings):
        return PrepareConfig(
            source="csv",
            interactions=write("log.csv", *log),
            items=write("items.csv", *items),
            output=tmp_path / "data",
            **settings,
        )

    return make


def read(directory, split):
    return pa.concat_tables(pq.read_table(file) for file in sequence_files(directory, split))


def test_data_set(config, capsys):
    directory = prepare(config(rows_per_shard=3, max_history=2))
    items = pq.read_table(directory / "items.parquet")
    splits = {split: read(directory, split) for split in NAMES}
    assert items.schema == ITEMS
    assert all(table.schema == SEQUENCES for table in splits.values())
    assert items["title"].to_pylist() == [f"Title & {item}" for item in range(7)]
    assert {split: table.num_rows for split, table in splits.items()} == {
        "train": 12,
        "validation": 1,
        "test": 2,
        "gate": 1,
    }
    row_ids = [row_id for table in splits.values() for row_id in table["row_id"].to_pylist()]
    assert sorted(row_ids) == list(range(16))
    targets = splits["train"]["target"].to_pylist()
    assert items["train_count"].to_pylist() == [targets.count(item) for item in range(7)]
    assert splits["train"].slice(0, 2).to_pylist() == [
        {"row_id": 0, "user_id": "u0", "position": 1, "history": [0], "target": 1, "timestamp": 10.0},
        {"row_id": 1, "user_id": "u0", "position": 2, "history": [0, 1], "target": 2, "timestamp": 20.0},
    ]
    assert len(sequence_files(directory, "train")) == 4  # one user of three rows each
    assert read_manifest(directory).shards["train"] == [3, 3, 3, 3]
    assert list(shard_rows(directory, "train").values()) == [3, 3, 3, 3]
    counts = read_manifest(directory, "prepare").counts
    assert (counts["items"], counts["users"], counts["interactions"], counts["train"]) == (7, 4, 20, 12)
    said = capsys.readouterr().out
    assert "7 items, 4 users, 20 interactions, 12 train, 1 validation, 2 test, 1 gate" in said
    assert re.search(r"^to beat +split +HR@5 .*\npopularity +validation +[01]\.\d{4}", said, re.MULTILINE)
    metrics = read_manifest(directory).metrics
    assert len(metrics) == 3 * 2 * 8
    assert metrics["transitions_test_hr@20"] == 1.0  # 7 items


def test_users_stand_together_and_in_order_in_each_split(config):
    directory = prepare(config(log=(HEADER, *reversed(LOG))))
    for split in NAMES:
        rows = read(directory, split).to_pylist()
        places = [(row["user_id"], row["position"]) for row in rows]
        order = list(dict.fromkeys(user for user, _ in places))
        assert places == sorted(places, key=lambda place: (order.index(place[0]), place[1]))


def test_row_ids_do_not_depend_on_the_split(config):
    found = []
    for settings in ({}, {"split": "leave-one-out"}, {"split": "timestamps", "cut_points": (25, 35)}):
        directory = prepare(config(overwrite=True, **settings))
        rows = [row for split in NAMES for row in read(directory, split).to_pylist()]
        found.append(sorted((row["row_id"], row["user_id"], row["position"]) for row in rows))
    assert found[0] == found[1] == found[2]


def test_sources_agree(config, tmp_path, write):
    """The same data in every raw format gives the same data set."""
    expected = read_manifest(prepare(config())).fingerprint
    log = [line.split(",") for line in LOG]
    titles = [line.split(",") for line in ITEM_LINES]
    for name, rows in (("log", [HEADER.split(","), *log]), ("items", [["item_id", "title"], *titles])):
        header, *body = rows
        pq.write_table(pa.table(dict(zip(header, zip(*body, strict=True), strict=True))), tmp_path / f"{name}.parquet")
        typed = [f"{column}:token" for column in header]
        write(f"{name}.recbole", *("\t".join(row) for row in (typed, *body)))
    write("log.dat", *("::".join([user, item, "5", time]) for user, item, time in log))
    write("items.dat", *("::".join([item, title, "Drama"]) for item, title in titles))
    reviews = [{"reviewerID": user, "asin": item, "unixReviewTime": int(time)} for user, item, time in log]
    write("log.json", *map(json.dumps, reviews))
    write("items.json", *(json.dumps({"asin": item, "title": title}) for item, title in titles))
    for source, ending in (("parquet", "parquet"), ("recbole", "recbole"), ("movielens", "dat"), ("amazon", "json")):
        directory = prepare(
            PrepareConfig(
                source=source,
                interactions=tmp_path / f"log.{ending}",
                items=tmp_path / f"items.{ending}",
                output=tmp_path / source,
            )
        )
        assert read_manifest(directory).fingerprint == expected, source


def test_synthetic_is_deterministic(tmp_path):
    def fingerprint(name, seed):
        settings = SyntheticConfig(users=60, items=80, seed=seed)
        return read_manifest(prepare(PrepareConfig(synthetic=settings, output=tmp_path / name))).fingerprint

    assert fingerprint("a", 1) == fingerprint("b", 1) != fingerprint("c", 2)


def test_default_synthetic_data_set_has_new_items_and_about_12000_train_rows(tmp_path):
    directory = prepare(PrepareConfig(output=tmp_path / "data"))
    counts = read_manifest(directory).counts
    assert 11_000 < counts["train"] < 13_000
    train_counts = pq.read_table(directory / "items.parquet")["train_count"].to_numpy()
    assert 0.02 < (train_counts[read(directory, "test")["target"].to_numpy()] == 0).mean() < 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log": ["user_id,itemid,timestamp", *LOG]}, "log.csv: no column `item_id` among user_id, itemid, timestamp"),
        ({"log": []}, "log.csv: holds no rows"),
        ({"items": ["item_id,title"]}, "items.csv: holds no rows"),
        ({"log": [HEADER, *LOG, LOG[2]]}, "log.csv, line 22: user 'u2' has item 'i2' at the same timestamp"),
        ({"log": [HEADER, *LOG, "u1,i5,nan"]}, "log.csv, line 22: timestamp 'nan'"),
        ({"log": [HEADER, *LOG, "u9,i5,3"]}, "log.csv, line 22: user 'u9' has a single interaction"),
        ({"items": ["item_id,title", f"i0,{'x' * 10_000}"]}, "items.csv, line 2: title of 10,000 characters"),
        ({"split": "timestamps", "cut_points": (900, 1000)}, "leaves validation empty"),
    ],
)
def test_bad_input_leaves_nothing_behind(config, tmp_path, change, message):
    with pytest.raises(DataError) as caught:
        prepare(config(**change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["items.csv", "log.csv"]


def test_bad_rows_are_dropped_and_counted(config):
    bad = [LOG[0], "u1,i5,nan", "u2,i5,-3", "u9,i5,3", "u1", "u3,unknown,70"]
    expected = read_manifest(prepare(config())).fingerprint
    manifest = read_manifest(prepare(config(log=(HEADER, *LOG, *bad), bad_rows="drop", overwrite=True)))
    assert manifest.fingerprint == expected
    assert {name: count for name, count in manifest.counts.items() if count and "_" in name} == {
        "interactions_read": 25,
        "interactions_malformed": 1,
        "interactions_invalid": 2,
        "interactions_duplicate": 1,
        "users_with_one_interaction": 1,
        "interactions_dropped": 1,
        "interactions_unmatched": 1,
        "items_unmatched": 1,
        "items_without_interaction": 1,
    }


def test_what_was_left_out_is_said_by_reason(config, capsys):
    prepare(config(log=(HEADER, *LOG, "u1,i5,nan", "u1"), bad_rows="drop"))
    line = next(line for line in capsys.readouterr().out.splitlines() if " items, " in line)
    assert "(1 interactions malformed, 1 interactions invalid" in line
    assert line.endswith("1 items have no interaction, --catalogue interacted leaves them out")
    prepare(config(catalogue="interacted", overwrite=True))
    line = next(line for line in capsys.readouterr().out.splitlines() if " items, " in line)
    assert "6 items" in line and "--catalogue" not in line


def test_options_that_do_not_fit(config, tmp_path):
    with pytest.raises(ConfigError, match="--source csv needs --interactions FILE"):
        prepare(PrepareConfig(source="csv", output=tmp_path / "data"))
    with pytest.raises(ConfigError, match="needs --cut-points"):
        prepare(config(split="timestamps"))
    with pytest.raises(ConfigError, match="out of order"):
        prepare(config(split="timestamps", cut_points=(3, 2)))
    with pytest.raises(DataError, match=r"none\.csv: no such file: check --items"):
        prepare(config().model_copy(update={"items": tmp_path / "none.csv"}))
    with pytest.raises(DataError, match="a directory where a file is expected: check --items"):
        prepare(config().model_copy(update={"items": tmp_path}))


def test_output_is_not_overwritten_unasked(config):
    directory = prepare(config())
    before = (directory / MANIFEST_FILE).read_bytes()
    with pytest.raises(OutputError):
        prepare(config(split="leave-one-out"))
    assert (directory / MANIFEST_FILE).read_bytes() == before


def test_failed_overwrite_keeps_the_old_data_set(config):
    directory = prepare(config())
    before = read_manifest(directory).fingerprint
    with pytest.raises(UserError):
        prepare(config(log=[HEADER, "u,i0,x"], overwrite=True))
    assert read_manifest(directory).fingerprint == before


def test_command_line(write, tmp_path, capsys):
    log, items = write("log.csv", HEADER, *LOG), write("items.csv", "item_id,title", *ITEM_LINES)
    options = ["--source", "csv", "--interactions", str(log), "--items", str(items), "--output", str(tmp_path / "data")]
    main(["prepare", *options, "--split", "timestamps", "--cut-points", "25", "35"])
    assert read_manifest(tmp_path / "data").config["cut_points"] == [25, 35]
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", *options, "--max-history", "0"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
