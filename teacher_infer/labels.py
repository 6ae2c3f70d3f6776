"""Label shards, one for every shard of the data set, and how well the labels find the true items."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from data_prep.metrics import METRICS, gains
from data_prep.reading import read_rows, shards
from data_prep.schema import Split, labels_schema, shard_name
from teacher_infer.config import TeachConfig
from teacher_infer.grounding import Catalogue, Ranking
from teacher_infer.teachers import Queries, Teacher, padded

NOT_FOUND = 10**9


@dataclass
class Score:
    """Where the true items of a split stand in the teacher's lists, and the time the teacher took."""

    ranks: list[Tensor] = field(default_factory=list)  # from 1; beyond all cutoffs where the item is not in the list
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Rows scored."""
        return sum(map(len, self.ranks))

    def metrics(self, top_k: int) -> dict[str, float]:
        """HR@K, NDCG@K and MRR@K (one true item, full ranking) for the cutoffs that the lists are long enough for."""
        if not self.rows:
            return {}
        means = dict(zip(METRICS, gains(torch.cat(self.ranks)).mean(0).tolist(), strict=True))
        return {name: value for name, value in means.items() if int(name.partition("@")[2]) <= top_k}


def label_split(teacher: Teacher, catalogue: Catalogue, split: Split, config: TeachConfig, output: Path) -> Score:
    """Write the labels of one split, shard by shard, and score them."""
    folder = output / "labels" / split
    folder.mkdir(parents=True)
    score, histories = Score(), []
    for number, shard in enumerate(shards(config.dataset, split)):
        rows = read_rows(shard)
        shard_histories = rows["history"].to_pylist()
        start = time.perf_counter()
        queries = teacher.place(shard_histories)
        ranking = catalogue.rank(queries.points, config.top_k, _excluded(shard_histories, len(catalogue), config))
        score.seconds += time.perf_counter() - start
        score.ranks.append(_ranks(ranking, _targets(rows)))
        pq.write_table(_table(rows, queries, ranking, catalogue), folder / shard_name(number))
        histories += shard_histories
    score.seconds += teacher.engine_seconds(histories)
    return score


def _excluded(histories: Sequence[Sequence[int]], items: int, config: TeachConfig) -> Tensor | None:
    if not config.exclude_history:
        return None
    return padded(histories, max(map(len, histories), default=0), items)


def _ranks(ranking: Ranking, targets_B: Tensor) -> Tensor:
    found_BK = ranking.items == targets_B[:, None]
    return torch.where(found_BK.any(1), found_BK.int().argmax(1) + 1, NOT_FOUND)


def _table(rows: pa.Table, queries: Queries, ranking: Ranking, catalogue: Catalogue) -> pa.Table:
    target_scores = catalogue.scores(queries.points, _targets(rows))
    columns = {
        "row_id": rows["row_id"],
        "items": list(ranking.items.numpy()),
        "scores": list(ranking.scores.numpy()),
        "target_score": target_scores.numpy(),
        "text": queries.texts if queries.texts is not None else [None] * len(rows),
    }
    return pa.table(columns, schema=labels_schema(catalogue.kind))


def _targets(rows: pa.Table) -> Tensor:
    return torch.from_numpy(rows["target"].to_numpy().astype(np.int64))
