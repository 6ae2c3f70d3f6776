"""``embed``: items nearest to the history among the embedded titles, by cosine."""

import time
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from data_prep.schema import ScoreKind
from teacher_infer.config import LabelConfig
from teacher_infer.engine import VllmEngine
from teacher_infer.nearest import Catalogue
from teacher_infer.rankers.base import Ranked, Rows, padded
from teacher_infer.rankers.teacher import Teacher
from teacher_infer.stats import Stats, list_gains
from teacher_infer.whitening import Whitening


class Embed:
    """A history is the recency-weighted mean of its titles' unit embeddings, or one text that is embedded itself."""

    kind: ScoreKind = "cosine"
    asks = ("embed",)

    def __init__(
        self,
        titles: Sequence[str],
        items_NE: Tensor,
        catalogue: Catalogue,
        embedder: Callable[[], VllmEngine],
        whitening: Whitening | None,
        config: LabelConfig,
    ) -> None:
        self._titles, self._items_NE, self._catalogue, self._config = titles, items_NE, catalogue, config
        self._embedder, self._whitening = embedder, whitening

    @classmethod
    def open(cls, teacher: Teacher) -> Self:
        """See :class:`teacher_infer.rankers.base.Ranker`."""
        items_NE, embedder = teacher.items(), lambda: teacher.engines("embed")
        catalogue = teacher.catalogue(items_NE, cls.kind)
        return cls(teacher.titles, items_NE, catalogue, embedder, teacher.whitening(), teacher.config)

    def rank(self, rows: Rows) -> Ranked:
        """See :class:`teacher_infer.rankers.base.Ranker`."""
        started, asked = time.perf_counter(), Stats()
        if self._config.history == "text":
            points_BE, asked = self._embedded(rows.history)
        else:
            points_BE = self._means(rows.history)
        excluded = padded(rows.history, len(self._titles)) if self._config.exclude_history else None
        ranking = self._catalogue.rank(points_BE, self._config.top_k, excluded)
        stats = asked + Stats(
            rows=len(rows.history),
            valid=len(rows.history),
            seconds=time.perf_counter() - started,
            gains=list_gains(ranking.items, rows.target),
        )
        target_scores = self._catalogue.scores(points_BE, rows.target)
        return Ranked(ranking.items, ranking.scores, target_scores, [None] * len(rows.history), stats)

    def _means(self, histories: Sequence[Sequence[int]]) -> Tensor:
        """Means of unit title embeddings, the newest with weight 1, the one before with ``decay`` …"""
        padding = len(self._titles)
        newest_first_BL = padded([list(reversed(history)) for history in histories], padding)
        weights_BL = (self._config.decay ** torch.arange(newest_first_BL.shape[1])).expand(newest_first_BL.shape)
        seen_U, place_BL = newest_first_BL.unique(return_inverse=True)
        units_UE = functional.normalize(self._items_NE[seen_U[seen_U < padding]].float(), dim=1)
        # Padding is the last of the seen, and where there is none its row is not asked for.
        table = torch.cat([units_UE, torch.zeros(1, units_UE.shape[1])])
        sums_BE = functional.embedding_bag(place_BL, table, per_sample_weights=weights_BL.contiguous(), mode="sum")
        return sums_BE / (weights_BL * (newest_first_BL < padding)).sum(1, keepdim=True)

    def _embedded(self, histories: Sequence[Sequence[int]]) -> tuple[Tensor, Stats]:
        engine = self._embedder()
        texts = engine.history_texts([[self._titles[item] for item in history] for history in histories])
        place_of: dict[tuple[int, ...], int] = {}
        places = [place_of.setdefault(tuple(text.tokens), len(place_of)) for text in texts]
        values = engine.embed_tokens(list(place_of))
        if self._whitening:
            values = self._whitening(values)
        stats = Stats(
            prompts=len(place_of),
            prompt_tokens=sum(map(len, place_of)),
            dropped_titles=sum(text.dropped for text in texts),
        )
        return values[places], stats
