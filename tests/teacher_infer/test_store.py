"""The label store: what it says is missing, what it refuses, and what a stopped or failed attempt leaves."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from cluster.errors import OutputError, StaleInputError
from cluster.storage import MANIFEST_FILE
from data_prep.reading import read_range, read_rows
from data_prep.schema import EMBEDDINGS_TENSOR, failure_file, label_file, labels_schema, sequence_files
from teacher_infer.stats import Stats
from teacher_infer.store import ANSWERS, JOB_FILE, LabelStore, plan

MADE_FROM = {"dataset": "a" * 64, "teacher": "b" * 64, "top_k": 20}


def labels(row_ids):
    columns = [row_ids, [[1]] * len(row_ids), [[0.5]] * len(row_ids), [0.5] * len(row_ids), [None] * len(row_ids)]
    return pa.table(columns, schema=labels_schema("cosine"))


@pytest.fixture
def store(tmp_path):
    store = LabelStore(tmp_path / "labels")
    store.open(MADE_FROM, overwrite=False)
    return store


@pytest.fixture
def shard(tiny_dataset):
    (shard, *_) = plan(tiny_dataset, ("test",), 15)
    return shard


@pytest.fixture
def ids(tiny_dataset, shard):
    return read_range(tiny_dataset, shard.split, shard.start, shard.rows)["row_id"].to_pylist()


def test_shards_cover_every_row_once_whatever_the_files(tiny_dataset):
    shards = plan(tiny_dataset, ("train", "test"), 33)
    assert [(c.split, c.number, c.start, c.rows) for c in shards] == [
        *(("train", at, 33 * at, 33) for at in range(4)),
        *(("train", 4, 132, 28), ("test", 0, 0, 30)),
    ]
    tables = [read_range(tiny_dataset, c.split, c.start, c.rows) for c in shards]
    for split in ("train", "test"):
        stored = [read_rows(file) for file in sequence_files(tiny_dataset, split)]
        found = [table for c, table in zip(shards, tables, strict=True) if c.split == split]
        assert pa.concat_tables(found).equals(pa.concat_tables(stored))


def test_a_limit_is_of_each_split_and_the_rest_can_follow(tiny_dataset, store):
    limited = plan(tiny_dataset, ("train", "test"), 16, limit=20)
    assert [(c.split, c.number, c.rows) for c in limited] == [
        *(("train", 0, 16), ("train", 1, 4), ("test", 0, 16), ("test", 1, 4))
    ]
    for part in limited:
        rows = store.unlabelled(tiny_dataset, part)["row_id"].to_pylist()
        store.commit(part, labels(rows), {}, Stats(rows=len(rows)))
    assert not list(store.missing(limited))
    full = plan(tiny_dataset, ("test",), 16)
    assert list(store.missing(full)) == full[1:]
    assert len(store.unlabelled(tiny_dataset, full[1])) == 10


def test_failed_rows_are_missing_until_they_are_labelled(store, tiny_dataset, shard, ids):
    assert store.unlabelled(tiny_dataset, shard)["row_id"].to_pylist() == ids
    store.commit(shard, labels(ids[:3] + ids[4:]), {ids[3]: "no"}, Stats(rows=14, prompts=9))
    assert list(store.missing([shard])) == [shard]
    assert store.stats(shard) == Stats(rows=14, failed=1, prompts=9)

    assert store.unlabelled(tiny_dataset, shard)["row_id"].to_pylist() == [ids[3]]
    store.commit(shard, labels([ids[3]]), {}, Stats(rows=1, prompts=1))
    assert not list(store.missing([shard]))
    assert pq.read_table(label_file(store.root, "test", 0))["row_id"].to_pylist() == ids
    assert store.stats(shard) == Stats(rows=15, prompts=10)
    assert not failure_file(store.root, "test", 0).exists()


def test_an_attempt_that_did_not_get_to_its_end_counts_nothing(store, shard, ids):
    label_file(store.root, "test", 0).mkdir(parents=True)
    with pytest.raises(OSError):
        store.commit(shard, labels(ids), {}, Stats(rows=15, prompts=5))
    label_file(store.root, "test", 0).rmdir()
    assert list(store.missing([shard])) == [shard]
    assert store.stats(shard) == Stats()
    store.commit(shard, labels(ids), {}, Stats(rows=15, prompts=6))
    assert store.stats(shard) == Stats(rows=15, prompts=6)


@pytest.mark.parametrize("left", [0, 40])
def test_what_a_lost_machine_left_half_written_is_absent(store, tiny_dataset, shard, ids, left):
    store.commit(shard, labels(ids), {}, Stats(rows=15))
    file = label_file(store.root, "test", 0)
    file.write_bytes(file.read_bytes()[:left])
    (store._stats_folder(shard) / "0.json").write_bytes(b"")
    assert list(store.missing([shard])) == [shard]
    assert len(store.unlabelled(tiny_dataset, shard)) == 15
    assert store.stats(shard).prompts == 0
    store.commit(shard, labels(ids), {}, Stats(rows=15))
    assert not list(store.missing([shard]))


def test_a_late_worker_of_another_job_commits_nothing(store, shard, ids):
    late = LabelStore(store.root, store.attempt)
    store.open(MADE_FROM | {"top_k": 10}, overwrite=True)
    with pytest.raises(StaleInputError, match="another job has begun"):
        late.commit(shard, labels(ids), {}, Stats(rows=15))
    with pytest.raises(StaleInputError, match="another job has begun"):
        late.commit_answers(shard, answers(dict.fromkeys(ids, "a")), Stats())
    assert not label_file(store.root, "test", 0).exists()


def test_what_another_job_left_counts_as_absent(store, tiny_dataset, shard, ids):
    store.commit(shard, labels(ids), {}, Stats(rows=15))
    committed = label_file(store.root, "test", 0).read_bytes()
    store.open(MADE_FROM | {"top_k": 10}, overwrite=True)
    label_file(store.root, "test", 0).parent.mkdir(parents=True)
    label_file(store.root, "test", 0).write_bytes(committed)
    assert list(store.missing([shard])) == [shard]
    assert len(store.unlabelled(tiny_dataset, shard)) == 15


def test_a_shard_never_loses_rows_to_a_slower_worker(store, shard, ids):
    slow = LabelStore(store.root, store.attempt)
    store.commit(shard, labels(ids), {}, Stats(rows=15, prompts=3))
    slow.commit(shard, labels(ids[:4]), {ids[5]: "no"}, Stats(rows=4))
    assert pq.read_table(label_file(store.root, "test", 0))["row_id"].to_pylist() == ids


def test_labels_of_an_earlier_version_go_on(store, shard, ids):
    """Their job has no name, and neither have their shards."""
    file = store.root / JOB_FILE
    file.write_text(json.dumps(MADE_FROM))
    assert store.open(MADE_FROM, overwrite=False) is None
    store.commit(shard, labels(ids), {}, Stats(rows=15))
    assert not list(store.missing([shard]))


def answers(texts, error=None):
    rows = [{"row_id": i, "text": text, "dropped": 0, "error": None if text else "no"} for i, text in texts.items()]
    return pa.Table.from_pylist(rows, schema=ANSWERS)


def test_answers_are_kept_with_what_they_took(store, shard, ids):
    assert store.unanswered([shard]) == [shard]
    store.commit_answers(shard, answers(dict.fromkeys(ids, "Red") | {ids[2]: None}), Stats(prompts=9, new_tokens=30))
    assert store.unanswered([shard]) == [shard]
    store.commit_answers(shard, answers({ids[2]: "Blue"}), Stats(prompts=1, new_tokens=4))
    assert store.unanswered([shard]) == []
    assert dict(zip(ids, store.answers(shard)["text"].to_pylist(), strict=True))[ids[2]] == "Blue"
    store.commit(shard, labels(ids), {}, Stats(rows=15))
    assert store.stats(shard) == Stats(rows=15, prompts=10, new_tokens=34)


def test_a_store_that_was_half_emptied_is_emptied_again(store, monkeypatch):
    from teacher_infer import store as module

    def stop(root, kept):
        raise KeyboardInterrupt

    (store.root / "labels").mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "clear", stop)
        store.open(MADE_FROM | {"top_k": 10}, overwrite=True)
    with pytest.raises(StaleInputError, match="--overwrite True"):
        store.open(MADE_FROM | {"top_k": 10}, overwrite=False)
    store.open(MADE_FROM | {"top_k": 10}, overwrite=True)
    assert not (store.root / "labels").exists()


def test_the_same_job_goes_on(store):
    (store.root / "labels").mkdir()
    store.open(MADE_FROM, overwrite=False)
    store.open(MADE_FROM, overwrite=True)
    assert (store.root / "labels").is_dir()


def test_another_job_is_refused_and_told_what_changed(store):
    with pytest.raises(StaleInputError, match=r"another teacher, top_k \(20, now 10\): .* --overwrite True"):
        store.open(MADE_FROM | {"teacher": "c" * 64, "top_k": 10}, overwrite=False)
    (store.root / "labels").mkdir()
    store.open(MADE_FROM | {"top_k": 10}, overwrite=True)
    assert not (store.root / "labels").exists()


def test_a_finished_job_is_done_anew_only_if_asked(store):
    (store.root / MANIFEST_FILE).write_text("{}")
    store.open(MADE_FROM, overwrite=False)
    assert store.finished
    store.open(MADE_FROM, overwrite=True)
    assert not store.finished


def test_what_is_no_label_store_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="did not make"):
            LabelStore(tmp_path).open(MADE_FROM, overwrite)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_embeddings_are_put_together_in_item_order(tmp_path, monkeypatch):
    import numpy as np

    from teacher_infer import embeddings

    monkeypatch.setattr(embeddings, "BLOCK", 3)
    values = np.arange(24, dtype=np.float32).reshape(8, 3)
    for part, start in enumerate((0, 4)):
        np.save(tmp_path / f"{part}.npy", values[start : start + 4])
    places = np.array([7, 0, 0, 5, 2, 1, 6])
    embeddings.put_together([tmp_path / "0.npy", tmp_path / "1.npy"], places, 4, tmp_path / "all.safetensors")
    assert (load_file(tmp_path / "all.safetensors")[EMBEDDINGS_TENSOR].numpy() == values[places]).all()
