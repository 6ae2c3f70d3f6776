"""The label store: what it says is missing, what it refuses, and what a stopped or failed attempt leaves."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from cluster.errors import OutputError, StaleInputError
from cluster.storage import MANIFEST_FILE
from data_prep.schema import EMBEDDINGS_TENSOR, failure_file, label_file, labels_schema
from teacher_infer.stats import Stats
from teacher_infer.store import LabelStore, plan

MADE_FROM = {"dataset": "a" * 64, "teacher": "b" * 64, "top_k": 20}


def labels(row_ids):
    columns = [row_ids, [[1]] * len(row_ids), [[0.5]] * len(row_ids), [0.5] * len(row_ids), [None] * len(row_ids)]
    return pa.table(columns, schema=labels_schema("cosine"))


@pytest.fixture
def store(tmp_path):
    store = LabelStore(tmp_path / "labels")
    store.open(MADE_FROM, overwrite=False)
    return store


def test_shards_cover_every_row_once_and_do_not_cross_files(tiny_dataset):
    shards = plan(tiny_dataset, ("train", "test"), 33)
    assert [(c.split, c.number, c.start, c.rows) for c in shards] == [
        *(("train", 0, 0, 33), ("train", 1, 33, 33), ("train", 2, 66, 14)),
        *(("train", 3, 0, 33), ("train", 4, 33, 33), ("train", 5, 66, 14)),
        *(("test", 0, 0, 15), ("test", 1, 0, 15)),
    ]
    rows = [row_id for shard in shards for row_id in shard.read()["row_id"].to_pylist()]
    assert len(set(rows)) == len(rows) == 190


def test_failed_rows_are_missing_until_they_are_labelled(store, tiny_dataset):
    (shard, *_) = plan(tiny_dataset, ("test",), 33)
    rows, before = store.unlabelled(shard)
    ids = rows["row_id"].to_pylist()
    assert before is None
    store.commit(shard, None, labels(ids[:3] + ids[4:]), {ids[3]: "no"}, Stats(rows=14, prompts=9))
    assert list(store.missing([shard])) == [shard]
    assert store.stats(shard) == Stats(rows=14, failed=1, prompts=9)
    assert store.first_failure([shard]) == f"row {ids[3]}: no"

    rows, before = store.unlabelled(shard)
    assert rows["row_id"].to_pylist() == [ids[3]]
    store.commit(shard, before, labels([ids[3]]), {}, Stats(rows=1, prompts=1))
    assert not list(store.missing([shard]))
    assert pq.read_table(label_file(store.root, "test", 0))["row_id"].to_pylist() == ids
    assert store.stats(shard) == Stats(rows=15, prompts=10)
    assert not failure_file(store.root, "test", 0).exists()


def test_an_attempt_that_did_not_get_to_its_end_counts_nothing(store, tiny_dataset, monkeypatch):
    (shard, *_) = plan(tiny_dataset, ("test",), 33)
    ids = shard.read()["row_id"].to_pylist()
    label_file(store.root, "test", 0).parent.mkdir(parents=True)
    label_file(store.root, "test", 0).mkdir()
    with pytest.raises(OSError):
        store.commit(shard, None, labels(ids), {}, Stats(rows=15, prompts=5))
    label_file(store.root, "test", 0).rmdir()
    assert list(store.missing([shard])) == [shard]
    assert store.stats(shard) == Stats()
    store.commit(shard, None, labels(ids), {}, Stats(rows=15, prompts=6))
    assert store.stats(shard) == Stats(rows=15, prompts=6)


def test_a_damaged_shard_is_labelled_anew(store, tiny_dataset):
    (shard, *_) = plan(tiny_dataset, ("test",), 33)
    ids = shard.read()["row_id"].to_pylist()
    store.commit(shard, None, labels(ids), {}, Stats(rows=15))
    label_file(store.root, "test", 0).write_bytes(b"")
    assert list(store.missing([shard])) == [shard]
    rows, before = store.unlabelled(shard)
    assert (len(rows), before) == (15, None)
    store.commit(shard, before, labels(ids), {}, Stats(rows=15))
    assert not list(store.missing([shard]))


def test_a_store_that_was_half_emptied_is_still_known(store, tiny_dataset, monkeypatch):
    from teacher_infer import store as module

    def stop(file, text):
        raise KeyboardInterrupt

    (store.root / "labels").mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_write", stop)
        store.open(MADE_FROM | {"top_k": 10}, overwrite=True)
    with pytest.raises(StaleInputError, match="--overwrite True"):
        store.open(MADE_FROM | {"top_k": 10}, overwrite=False)
    store.open(MADE_FROM | {"top_k": 10}, overwrite=True)


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
