"""Work of the pool: label one shard and commit it."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch

from cluster.dotted_path import find
from cluster.errors import UserError
from data_prep.reading import read_titles
from data_prep.schema import ScoreKind, labels_schema
from teacher_infer.config import RANKERS
from teacher_infer.job import Engines, Job
from teacher_infer.rankers.base import Ranked, Ranker, Rows, RowsRefused
from teacher_infer.rankers.teacher import Teacher
from teacher_infer.stats import Stats
from teacher_infer.store import Shard

TRIES = 2
GIVEN_UP = 8  # rows that fail one after the other, with new engines each, from which on the fault is not the rows'


class Label:
    """Labels shards; a row that fails is recorded and stops nothing else."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._titles = read_titles(job.config.dataset)
        self._engines = Engines(job, share=find(RANKERS, job.config.ranking).engines)
        self._empty = {item for item, title in enumerate(self._titles) if not title.strip()}

    @cached_property
    def _ranker(self) -> Ranker:
        return open_ranker(Teacher(self._job, self._titles, self._engines))

    def do(self, planned: Sequence[Any]) -> dict[str, Any]:
        """Label what a shard lacks."""
        shard, store = Shard(*planned), self._job.store
        table, before = store.unlabelled(shard)
        if not len(table):  # an actor committed it and died before it could say so
            return {"split": shard.split, "stats": store.stats(shard).model_dump()}
        rows = Rows(
            table["row_id"].to_pylist(),
            table["history"].to_pylist(),
            torch.from_numpy(table["target"].to_numpy().copy()).long(),
        )
        ranked, errors = self._rank(rows)
        kind = self._ranker.kind
        labels = pa.concat_tables([_empty(kind), *(_table(part, result, kind) for part, result in ranked)])
        stats = Stats.total(result.stats for _, result in ranked)
        store.commit(shard, before, labels.sort_by("row_id"), errors, stats)
        return {"split": shard.split, "stats": (stats + Stats(failed=len(errors))).model_dump()}

    def _rank(self, rows: Rows) -> tuple[list[tuple[Rows, Ranked]], dict[int, str]]:
        """All rows at once or, if that fails, one by one; with the errors of those that fail."""
        errors = self._untitled(rows)
        together: Ranked | str | None = None
        while together is None:
            rows = rows.take([at for at, row_id in enumerate(rows.row_id) if row_id not in errors])
            if not rows.row_id:
                return [], errors
            try:
                together = self._try(rows)
            except RowsRefused as refused:
                errors |= refused.errors
        if isinstance(together, Ranked):
            return [(rows, together)], errors
        ranked, in_a_row = list[tuple[Rows, Ranked]](), 0
        for at in range(len(rows.row_id)):
            row = rows.take([at])
            result = (
                self._try_again(row) if in_a_row < GIVEN_UP else f"not asked, {GIVEN_UP} rows before failed: {together}"
            )
            if isinstance(result, Ranked):
                ranked.append((row, result))
                in_a_row = 0
            else:
                errors[row.row_id[0]] = result
                in_a_row += 1
        return ranked, errors

    def _try_again(self, row: Rows) -> Ranked | str:
        for _ in range(TRIES):
            result = self._try(row)
            if isinstance(result, Ranked):
                break
        return result

    def _try(self, rows: Rows) -> Ranked | str:
        """The ranking, or the error.

        What an engine that raised still holds (requests half done, cached blocks that were never computed) could give
        other rows wrong labels, so it is ended.
        """
        try:
            return self._ranker.rank(rows)
        except (UserError, RowsRefused):
            raise
        except Exception as error:
            self._engines.close()
            return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

    def _untitled(self, rows: Rows) -> dict[int, str]:
        found = ((i, self._empty & set(history)) for i, history in zip(rows.row_id, rows.history, strict=True))
        return {i: f"item {min(items)} of the history has an empty title" for i, items in found if items}


def open_ranker(teacher: Teacher) -> Ranker:
    """The teacher's way to rank; its engines start when they are first asked.

    Raises:
        ConfigError: a dotted path leads to nothing.
    """
    torch.set_num_threads(teacher.config.resources.threads)
    ranker: Ranker = find(RANKERS, teacher.config.ranking).open(teacher)
    return ranker


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
