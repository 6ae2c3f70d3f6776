"""The verb on a tiny teacher trained by its own verb; results recomputed from the files that it wrote."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from cluster.errors import ConfigError, OutputError, StaleInputError
from cluster.storage import fingerprint, read_manifest
from data_prep.reading import read_rows, read_titles
from data_prep.schema import (
    EMBEDDINGS_FILE,
    EMBEDDINGS_TENSOR,
    LABELS,
    SCORE_KIND_KEY,
    SPLITS,
    label_files,
    sequence_files,
)
from teacher_infer.config import LabelConfig
from teacher_infer.job import Job
from teacher_infer.label import label
from teacher_infer.labeller import open_ranker
from teacher_infer.locate import MINILM, locate_teacher
from teacher_infer.rankers.base import Rows
from teacher_infer.rankers.teacher import Teacher
from tests.teacher_fixtures import TITLES, write_dataset
from tests.teacher_infer.conftest import job

TOP_K = 10


def labelled(tiny_teacher, ranking, output, **options):
    return label(job(tiny_teacher, output, ranking=ranking, **options))


@pytest.fixture(scope="module")
def embedded(tiny_teacher, tmp_path_factory):
    return labelled(tiny_teacher, "embed", tmp_path_factory.mktemp("labels") / "embed", teacher="minilm")


def read(files):
    return pa.concat_tables(pq.read_table(file) for file in files).to_pylist()


def joined(dataset, labels, split):
    """Rows of a split with their labels, by row id."""
    by_id = {row["row_id"]: row for row in read(label_files(labels, split))}
    return [row | by_id[row["row_id"]] for row in read(sequence_files(dataset, split))]


def check_files(dataset, labels, kind):
    for split in SPLITS:
        rows = read(sequence_files(dataset, split))
        assert [row["row_id"] for row in read(label_files(labels, split))] == [row["row_id"] for row in rows]
        for file in label_files(labels, split):
            schema = pq.read_schema(file)
            assert schema.equals(LABELS)
            assert schema.metadata[SCORE_KIND_KEY] == kind
        for row in joined(dataset, labels, split):
            assert len(set(row["items"])) == len(row["items"]) == len(row["scores"]) == TOP_K
    assert read_manifest(labels).counts["train"] == len(read(sequence_files(dataset, "train")))


def check_metrics(dataset, labels):
    metrics = read_manifest(labels).metrics
    for split in ("validation", "test"):
        rows = joined(dataset, labels, split)
        ranks = [row["items"].index(row["target"]) if row["target"] in row["items"] else None for row in rows]
        for cutoff in (1, 5, 10):
            hits = [rank for rank in ranks if rank is not None and rank < cutoff]
            assert metrics[f"{split}_hr@{cutoff}"] == pytest.approx(len(hits) / len(rows))
            gain = sum(1 / math.log2(rank + 2) for rank in hits) / len(rows)
            assert metrics[f"{split}_ndcg@{cutoff}"] == pytest.approx(gain)
    assert metrics["test_seconds"] > 0


@pytest.mark.engine
def test_ground_labels_every_row_once(tiny_teacher, grounded):
    check_files(tiny_teacher.dataset, grounded, b"distance")
    check_metrics(tiny_teacher.dataset, grounded)


@pytest.mark.engine
def test_ground_distances_are_those_of_the_generated_titles(tiny_teacher, grounded):
    items = load_file(grounded / EMBEDDINGS_FILE)[EMBEDDINGS_TENSOR]
    assert items.dtype == torch.float32
    known = [row for row in joined(tiny_teacher.dataset, grounded, "test") if row["text"] in TITLES]
    assert known
    for row in known:
        distances = (items[TITLES.index(row["text"])].double() - items.double()).norm(dim=1)
        assert row["items"][0] == TITLES.index(row["text"])
        torch.testing.assert_close(torch.tensor(row["scores"]), distances[row["items"]].float())
        assert row["target_score"] == pytest.approx(distances[row["target"]].item(), rel=1e-5, abs=1e-6)


@pytest.mark.engine
def test_the_trained_teacher_has_learned_the_order(grounded):
    # A ranking by chance hits the true one of 24 items in its first ten with probability 0.42, at the top with 0.04.
    assert read_manifest(grounded).metrics["test_hr@1"] > 0.4


@pytest.mark.engine
def test_labels_name_what_they_were_made_from(tiny_teacher, grounded):
    inputs = read_manifest(grounded, "label").inputs
    assert inputs["dataset"] == read_manifest(tiny_teacher.dataset).fingerprint
    assert inputs["teacher"] == fingerprint(tiny_teacher.teacher)


@pytest.mark.engine
def test_embed_ranks_by_cosine_to_the_recency_weighted_mean(tiny_teacher, embedded):
    check_files(tiny_teacher.dataset, embedded, b"cosine")
    check_metrics(tiny_teacher.dataset, embedded)
    items = functional.normalize(load_file(embedded / EMBEDDINGS_FILE)[EMBEDDINGS_TENSOR].double(), dim=1)
    for row in joined(tiny_teacher.dataset, embedded, "test"):
        history = row["history"]
        weights = [0.7 ** (len(history) - 1 - at) for at in range(len(history))]
        mean = sum(weight * items[item] for weight, item in zip(weights, history, strict=True))
        cosine = functional.normalize(mean, dim=0) @ items.T
        assert row["target_score"] == pytest.approx(cosine[row["target"]].item(), abs=1e-6)
        assert not set(row["items"]) & set(history)
        cosine[history] = -2
        assert row["scores"] == pytest.approx(cosine.topk(TOP_K).values.tolist(), abs=1e-6)
        assert row["text"] is None
    assert read_manifest(embedded).config["exclude_history"] is True


def ranked(engine, config, model):
    """The test rows as a ranker ranks them; in the engine's process."""
    teacher = Teacher(Job(config, model), read_titles(config.dataset), lambda task: engine)
    table = pa.concat_tables(read_rows(file) for file in sequence_files(config.dataset, "test")).to_pydict()
    rows = Rows(table["row_id"], table["history"], torch.tensor(table["target"]))
    return open_ranker(teacher).rank(rows)


@pytest.mark.engine
def test_beam_lists_the_titles_that_scoring_every_one_finds(tiny_teacher, beamed, generator, tmp_path):
    scored = generator(ranked, job(tiny_teacher, tmp_path, ranking="score"), tiny_teacher.teacher)
    listed = joined(tiny_teacher.dataset, beamed, "test")
    assert [row["items"] for row in listed] == scored.items.tolist()
    for row, scores in zip(listed, scored.scores.tolist(), strict=True):
        assert row["scores"] == pytest.approx(scores, abs=1e-4)
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert row["text"] == TITLES[row["items"][0]]
        if row["target"] in row["items"]:
            assert row["target_score"] == row["scores"][row["items"].index(row["target"])]
        else:
            assert row["target_score"] <= row["scores"][-1]
    assert pq.read_schema(label_files(beamed, "test")[0]).metadata[SCORE_KIND_KEY] == b"logprob"
    assert read_manifest(beamed).metrics["test_hr@1"] > 0.4


@pytest.mark.engine
def test_score_chooses_among_the_candidates_of_another_teacher(tiny_teacher, embedded, generator, tmp_path):
    config = job(tiny_teacher, tmp_path, ranking="score", candidates=embedded)
    items = generator(ranked, config, tiny_teacher.teacher).items.tolist()
    candidates = [row["items"] for row in joined(tiny_teacher.dataset, embedded, "test")]
    assert list(map(set, items)) == list(map(set, candidates))
    assert items != candidates
    with pytest.raises(ConfigError, match=r"--top-k 11 asks for more than the 10 candidates"):
        labelled(tiny_teacher, "score", tmp_path / "more", candidates=embedded, top_k=11)


@pytest.mark.engine
def test_a_history_may_be_one_text(tiny_teacher, embedded, engines):
    options = {"teacher": MINILM, "ranking": "embed", "history": "text", "exclude_history": True}
    dataset = tiny_teacher.dataset
    model = locate_teacher(MINILM, "embed", dataset, read_manifest(dataset)).model
    by_text = engines("embed", ranked, job(tiny_teacher, embedded, **options), model, model=model)
    rows = joined(dataset, embedded, "test")
    assert all(not set(items) & set(row["history"]) for items, row in zip(by_text.items.tolist(), rows, strict=True))
    single = [at for at, row in enumerate(rows) if len(row["history"]) == 1]
    assert single
    for at in single:
        # The text of one title is that title.
        assert rows[at]["scores"] == pytest.approx(by_text.scores[at].tolist(), abs=1e-3)


@pytest.mark.engine
def test_a_teacher_of_another_data_set_is_refused(tiny_teacher, tmp_path):
    other = write_dataset(tmp_path / "other", list(reversed(TITLES)))
    with pytest.raises(StaleInputError, match="another dataset"):
        labelled(tiny_teacher._replace(dataset=other), "ground", tmp_path / "labels")


def test_a_list_longer_than_the_catalogue_is_refused(tiny_dataset, tmp_path):
    config = LabelConfig(dataset=tiny_dataset, teacher="minilm", ranking="embed", top_k=24, output=tmp_path / "labels")
    with pytest.raises(ConfigError, match=r"24 items less 5 of the history"):
        label(config)
    assert not (tmp_path / "labels").exists()


def test_a_text_embedding_model_cannot_ground(tiny_dataset, tmp_path):
    with pytest.raises(ConfigError, match="--ranking embed"):
        label(LabelConfig(dataset=tiny_dataset, teacher="minilm", output=tmp_path / "labels"))


def test_a_missing_data_set_is_refused(tmp_path):
    with pytest.raises(StaleInputError, match="dllm2rec prepare"):
        label(LabelConfig(dataset=tmp_path / "nothing", teacher="minilm", output=tmp_path / "labels"))


def test_an_output_that_holds_something_else_is_refused(tiny_dataset, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        label(LabelConfig(dataset=tiny_dataset, teacher="minilm", ranking="embed", top_k=5, output=tmp_path))
