"""Work of the pool: label one shard and commit it."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load_file

from data_prep.reading import read_titles
from data_prep.schema import EMBEDDINGS_FILE, EMBEDDINGS_TENSOR, ScoreKind, labels_schema
from teacher_infer.config import TeachConfig
from teacher_infer.embeddings import read_whitening
from teacher_infer.grounding import Catalogue
from teacher_infer.item_file import ItemFile, ItemRows
from teacher_infer.job import Engines, Job
from teacher_infer.rankers import Ranked, Ranker, Rows
from teacher_infer.rankers.embed import Embed
from teacher_infer.rankers.ground import Ground
from teacher_infer.rankers.likelihood import Likelihood
from teacher_infer.store import Chunk
from teacher_infer.tally import Tally

ROW_ERRORS = (ValueError, RuntimeError)
TRIES = 2


class Label:
    """Labels shards; a row that fails is recorded and stops nothing else."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._titles = read_titles(job.config.dataset)
        self._empty = {item for item, title in enumerate(self._titles) if not title.strip()}

    @cached_property
    def _ranker(self) -> Ranker:
        return open_ranker(self._job, self._titles)

    def do(self, piece: Sequence[Any]) -> dict[str, Any]:
        """Label what shard ``piece`` lacks."""
        chunk, store = Chunk(*piece), self._job.store
        table, before = store.unlabelled(chunk)
        if not len(table):  # an actor committed it and died before it could say so
            return {"split": chunk.split, "tally": store.tally(chunk).model_dump()}
        rows = Rows(
            table["row_id"].to_pylist(),
            table["history"].to_pylist(),
            torch.from_numpy(table["target"].to_numpy().copy()).long(),
        )
        ranked, errors = self._rank(rows)
        kind = self._ranker.kind
        labels = pa.concat_tables([_empty(kind), *(_table(part, result, kind) for part, result in ranked)])
        tally = Tally.total(result.tally for _, result in ranked)
        store.commit(chunk, before, labels.sort_by("row_id"), errors, tally)
        return {"split": chunk.split, "tally": (tally + Tally(failed=len(errors))).model_dump()}

    def _rank(self, rows: Rows) -> tuple[list[tuple[Rows, Ranked]], dict[int, str]]:
        """All rows at once or, if the engine refuses that, one by one; with the errors of those that fail."""
        errors = self._untitled(rows)
        rows = rows.take([at for at, row_id in enumerate(rows.row_id) if row_id not in errors])
        try:
            return [(rows, self._ranker.rank(rows))] if len(rows.row_id) else [], errors
        except ROW_ERRORS:
            singles = [rows.take([at]) for at in range(len(rows.row_id))]
        ranked = []
        for row in singles:
            result = self._try(row)
            if isinstance(result, Ranked):
                ranked.append((row, result))
            else:
                errors[row.row_id[0]] = result
        return ranked, errors

    def _try(self, row: Rows) -> Ranked | str:
        for _ in range(TRIES):
            try:
                return self._ranker.rank(row)
            except ROW_ERRORS as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return reason

    def _untitled(self, rows: Rows) -> dict[int, str]:
        found = ((i, self._empty & set(history)) for i, history in zip(rows.row_id, rows.history, strict=True))
        return {i: f"item {min(items)} of the history has an empty title" for i, items in found if items}


def open_ranker(job: Job, titles: Sequence[str]) -> Ranker:
    """The teacher's way to rank; its engines start when they are first asked."""
    config = job.config
    if config.ranking in ("beam", "score"):
        engines = Engines(job, share=1)
        return Likelihood(titles, lambda: engines("generate"), config)
    torch.set_num_threads(max(1, int(config.engine.cpus)))
    items_NE = _items(config)
    device = "cuda" if config.engine.gpu else "cpu"
    if config.ranking == "embed":
        engines, catalogue = Engines(job, share=1), Catalogue(items_NE, Embed.kind, config.grounding_memory, device)
        return Embed(titles, items_NE, catalogue, lambda: engines("embed"), read_whitening(job), config)
    engines, catalogue = Engines(job, share=2), Catalogue(items_NE, Ground.kind, config.grounding_memory, device)
    return Ground(titles, items_NE, catalogue, lambda: engines("generate"), lambda: engines("embed"), config)


def _items(config: TeachConfig) -> ItemRows:
    """The item embeddings: in memory if they fit into what ranking may take, else read from their file as needed."""
    file = config.output / EMBEDDINGS_FILE
    if file.stat().st_size > config.grounding_memory:
        return ItemFile(file)
    return load_file(file)[EMBEDDINGS_TENSOR]


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
