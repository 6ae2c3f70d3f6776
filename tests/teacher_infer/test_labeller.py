"""One shard: what is committed when the ranker refuses rows."""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_prep.reading import read_range, read_titles
from data_prep.schema import failure_file, label_file, labels_schema
from teacher_infer.attempts import GIVEN_UP
from teacher_infer.config import LabelConfig
from teacher_infer.job import Engines, Job
from teacher_infer.labeller import Label
from teacher_infer.rankers.base import Ranked, Rows, RowsRefused
from teacher_infer.rankers.likelihood import Likelihood
from teacher_infer.rankers.teacher import Teacher
from teacher_infer.stats import Stats
from teacher_infer.store import Shard, plan


class First:
    """Ranks the first items of the catalogue for every row, but no batch that holds a row it refuses."""

    kind = "cosine"

    def __init__(self, refused: dict[int, int]) -> None:
        self.refused = refused  # times left, by row id

    def rank(self, rows: Rows) -> Ranked:
        for row_id in rows.row_id:
            if self.refused.get(row_id, 0):
                if len(rows.row_id) == 1:
                    self.refused[row_id] -= 1
                raise RuntimeError(f"no\nfor {row_id}")
        count = len(rows.row_id)
        items = torch.tensor([[0, 1]] * count)
        return Ranked(items, -items.float(), torch.zeros(count), [None] * count, Stats(rows=count, prompts=1))


@pytest.fixture
def first(tiny_dataset, tmp_path):
    config = LabelConfig(dataset=tiny_dataset, output=tmp_path / "labels", top_k=2)
    return begun(config)


def begun(config: LabelConfig):
    """The work on a job whose directory is begun, its first shard and the store."""
    job = Job(config, config.output)
    job = replace(job, attempt=job.store.open({}, overwrite=False))
    (shard, *_) = plan(config.dataset, ("test",), 15)
    return Label(job, Engines(job)), shard, job.store


def ids_of(label: Label, shard: Shard) -> list[int]:
    return read_range(label._job.config.dataset, shard.split, shard.start, shard.rows)["row_id"].to_pylist()


def test_a_row_that_is_refused_stops_no_other(first):
    label, shard, store = first
    ids = ids_of(label, shard)
    label._ranker = First({ids[4]: 9})
    done = label.do(shard)
    assert (done.stats.rows, done.stats.failed) == (14, 1)
    kept = pq.read_table(label_file(store.root, "test", 0))["row_id"].to_pylist()
    assert kept == ids[:4] + ids[5:]
    failures = pq.read_table(failure_file(store.root, "test", 0)).to_pylist()
    assert failures == [{"row_id": ids[4], "error": f"RuntimeError: no for {ids[4]}"}]


def test_a_row_that_is_refused_once_is_tried_again(first):
    label, shard, store = first
    ids = ids_of(label, shard)
    label._ranker = First({ids[4]: 1})
    label.do(shard)
    assert pq.read_table(label_file(store.root, "test", 0))["row_id"].to_pylist() == ids
    assert not failure_file(store.root, "test", 0).exists()


class Alphabetical:
    """A ranker of somebody else's: items by title."""

    kind = "cosine"

    def __init__(self, titles: Sequence[str], top_k: int) -> None:
        self._first = torch.tensor(sorted(range(len(titles)), key=titles.__getitem__)[:top_k])

    @classmethod
    def open(cls, teacher: Teacher) -> "Alphabetical":
        return cls(teacher.titles, teacher.config.top_k)

    def rank(self, rows: Rows) -> Ranked:
        count = len(rows.row_id)
        scores = -torch.arange(len(self._first)).float()
        items = self._first.expand(count, -1)
        return Ranked(items, scores.expand(count, -1), torch.zeros(count), [None] * count, Stats(rows=count))


def test_a_ranker_by_dotted_path_labels(tiny_dataset, tmp_path):
    output = tmp_path / "labels"
    config = LabelConfig(dataset=tiny_dataset, output=output, top_k=3, ranking=f"{__name__}:Alphabetical")
    label, shard, _ = begun(config)
    label.do(shard)
    titles = read_titles(tiny_dataset)
    first = sorted(range(len(titles)), key=titles.__getitem__)[:3]
    assert pq.read_table(label_file(output, "test", 0))["items"].to_pylist() == [first] * 15


def test_a_ranking_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"should be one of ground, beam, score, embed, or a dotted path"):
        LabelConfig(ranking="best")


class Choosy(First):
    """Refuses some rows by name; its engine is sound."""

    def rank(self, rows: Rows) -> Ranked:
        refused = {row_id: "no candidates" for row_id in rows.row_id if row_id in self.refused}
        if refused:
            raise RowsRefused(refused)
        return super().rank(rows)


def test_rows_that_cannot_be_ranked_fail_and_the_engine_stays(first):
    label, shard, store = first
    ids = ids_of(label, shard)
    engine = label._engines._open["generate"] = Broken()
    label._ranker = Choosy(dict.fromkeys([ids[2], ids[9]], 0))
    done = label.do(shard)
    assert (done.stats.rows, done.stats.failed) == (13, 2)
    failures = pq.read_table(failure_file(store.root, "test", 0)).to_pylist()
    assert failures == [{"row_id": ids[at], "error": "no candidates"} for at in (2, 9)]
    assert label._engines._open["generate"] is engine


def test_rows_without_enough_candidates_are_named_before_an_engine_is_asked(tiny_dataset, tmp_path):
    lists = pa.table(
        [[7, 8], [[0, 1, 2], [3, 4]], [[0.0] * 3, [0.0] * 2], [0.0] * 2, [None] * 2], labels_schema("cosine")
    )
    file = label_file(tmp_path, "test", 0)
    file.parent.mkdir(parents=True)
    pq.write_table(lists, file)
    config = LabelConfig(dataset=tiny_dataset, ranking="score", candidates=tmp_path, splits=("test",), top_k=3)
    ranker = Likelihood(read_titles(tiny_dataset), lambda: pytest.fail("asked"), config)
    with pytest.raises(RowsRefused) as refused:
        ranker.rank(Rows([7, 8, 9], [[5], [5], [5]], torch.zeros(3).long()))
    assert refused.value.errors == {
        8: "2 candidates to rank, --top-k asks for 3",
        9: "0 candidates to rank, --top-k asks for 3",
    }


class Broken:
    closed = 0

    def close(self) -> None:
        Broken.closed += 1


def test_an_engine_that_raised_is_not_asked_again(first):
    label, shard, _ = first
    ids = ids_of(label, shard)
    label._engines._open["generate"] = Broken()
    label._ranker = First({ids[4]: 1})
    label.do(shard)
    assert Broken.closed == 1
    assert not label._engines._open


class OutOfUse(First):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def rank(self, rows: Rows) -> Ranked:
        raise self.error


class EngineDeadError(Exception):
    """Named as vLLM's own."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        EngineDeadError("EngineCore encountered an issue"),
        OSError(5, "Input/output error"),
        MemoryError(),
    ],
)
def test_a_fault_of_the_machine_is_no_row_s(first, error):
    label, shard, store = first
    label._ranker = OutOfUse(error)
    with pytest.raises(type(error)):
        label.do(shard)
    assert not label_file(store.root, "test", 0).exists()
    assert not failure_file(store.root, "test", 0).exists()


def test_after_many_failures_in_a_row_the_others_are_not_asked(first):
    label, shard, store = first
    ids = ids_of(label, shard)
    label._ranker = First(dict.fromkeys(ids, 9))
    label.do(shard)
    errors = [row["error"] for row in pq.read_table(failure_file(store.root, "test", 0)).to_pylist()]
    assert errors[:GIVEN_UP] == [f"RuntimeError: no for {row_id}" for row_id in ids[:GIVEN_UP]]
    assert set(errors[GIVEN_UP:]) == {f"not asked, {GIVEN_UP} rows before failed: RuntimeError: no for {ids[0]}"}


def test_the_next_run_does_the_failed_rows_only(first):
    label, shard, store = first
    ids = ids_of(label, shard)
    label._ranker = First({ids[4]: 9, ids[7]: 9})
    label.do(shard)
    label._ranker = First({})
    done = label.do(shard)
    assert (done.stats.rows, done.stats.failed) == (2, 0)
    assert pq.read_table(label_file(store.root, "test", 0))["row_id"].to_pylist() == ids
    assert store.stats(shard).rows == 15
    assert not failure_file(store.root, "test", 0).exists()


def test_a_shard_that_was_committed_unheard_is_told_again(first):
    label, shard, store = first
    label._ranker = First({})
    first = label.do(shard)
    written = label_file(store.root, "test", 0).stat().st_mtime_ns
    assert label.do(shard) == first
    assert label_file(store.root, "test", 0).stat().st_mtime_ns == written


def test_a_shard_in_which_every_row_fails_is_left_for_the_next_run(first):
    label, shard, store = first
    ids = ids_of(label, shard)
    label._ranker = First(dict.fromkeys(ids, 9))
    done = label.do(shard)
    assert (done.stats.rows, done.stats.failed) == (0, 15)
    assert list(store.missing([shard])) == [shard]
    label._ranker = First({})
    label.do(shard)
    assert pq.read_table(label_file(store.root, "test", 0))["row_id"].to_pylist() == ids
