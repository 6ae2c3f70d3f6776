"""Work of the pool: label one shard and commit it."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa
import torch

from cluster.dotted_path import find
from data_prep.reading import read_titles
from data_prep.schema import ScoreKind, labels_schema
from teacher_infer.attempts import attempt
from teacher_infer.config import RANKERS
from teacher_infer.job import Engines, Job
from teacher_infer.rankers.base import Answer, Ranked, Ranker, Rows, takes_answers
from teacher_infer.rankers.teacher import Teacher
from teacher_infer.stats import Stats
from teacher_infer.store import Shard


class Done(NamedTuple):
    """What a shard took and gave, and the errors of its failed rows by row id."""

    stats: Stats
    errors: dict[int, str]


class Label:
    """Labels shards; a row that fails is recorded and stops nothing else."""

    def __init__(self, job: Job, engines: Engines) -> None:
        self._job, self._engines = job, engines
        self._titles = read_titles(job.config.dataset)

    @cached_property
    def _ranker(self) -> Ranker:
        return open_ranker(Teacher(self._job, self._titles, self._engines))

    def do(self, shard: Shard) -> Done:
        """Label what a shard lacks."""
        store = self._job.store
        rows = as_rows(store.unlabelled(self._job.config.dataset, shard))
        if not rows.row_id:  # an actor committed it and died before it could say so
            return Done(store.stats(shard), {})
        errors = untitled(rows, self._titles)
        if takes_answers(type(self._ranker)):
            rows, unanswered = _answered(rows, store.answers(shard))
            errors |= unanswered
        rows = rows.take([at for at, row_id in enumerate(rows.row_id) if row_id not in errors])
        ranked, failed = attempt(rows, self._ranker.rank, self._engines)
        errors |= failed
        kind = self._ranker.kind
        labels = pa.concat_tables([_empty(kind), *(_table(part, result, kind) for part, result in ranked)])
        stats = Stats.total(result.stats for _, result in ranked)
        store.commit(shard, labels.sort_by("row_id"), errors, stats)
        return Done(stats + Stats(failed=len(errors)), errors)


def open_ranker(teacher: Teacher) -> Ranker:
    """The teacher's way to rank; its engines start when they are first asked.

    Raises:
        ConfigError: a dotted path leads to nothing.
    """
    torch.set_num_threads(teacher.config.resources.threads)
    ranker: Ranker = find(RANKERS, teacher.config.ranking).open(teacher)
    return ranker


def as_rows(table: pa.Table) -> Rows:
    """Rows of the data set (SEQUENCES) for a ranker."""
    targets = torch.from_numpy(table["target"].to_numpy().copy()).long()
    return Rows(table["row_id"].to_pylist(), table["history"].to_pylist(), targets)


def untitled(rows: Rows, titles: Sequence[str]) -> dict[int, str]:
    """Errors of the rows whose history holds an item with an empty title, by row id."""
    histories = zip(rows.row_id, rows.history, strict=True)
    empty = ((i, [item for item in history if not titles[item].strip()]) for i, history in histories)
    return {i: f"item {min(items)} of the history has an empty title" for i, items in empty if items}


def _answered(rows: Rows, answers: pa.Table | None) -> tuple[Rows, dict[int, str]]:
    """Rows with their answers, and the errors of those that have none."""
    found = {line["row_id"]: line for line in answers.to_pylist()} if answers is not None else {}
    lines = [found.get(row_id, {"text": None, "error": "no answer was generated"}) for row_id in rows.row_id]
    errors = {i: line["error"] for i, line in zip(rows.row_id, lines, strict=True) if line["text"] is None}
    texts = [Answer(line["text"] or "", line.get("dropped", 0)) for line in lines]
    return rows._replace(answers=texts), errors


def _empty(kind: ScoreKind) -> pa.Table:
    return labels_schema(kind).empty_table()


def _table(rows: Rows, ranked: Ranked, kind: ScoreKind) -> pa.Table:
    columns = {
        "row_id": rows.row_id,
        "items": list(ranked.items.numpy()),
        "scores": list(ranked.scores.numpy()),
        "target_score": ranked.target_scores.numpy(),
        "text": ranked.texts,
    }
    return pa.table(columns, schema=labels_schema(kind))
