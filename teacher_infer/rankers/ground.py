"""``ground``: generate a title, embed it, rank the catalogue by L2 distance (BIGRec, arXiv 2308.08434, section 3)."""

import time
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from data_prep.schema import ScoreKind
from teacher_infer.config import LabelConfig
from teacher_infer.engine import VllmEngine
from teacher_infer.nearest import Catalogue
from teacher_infer.prompts import embedded, response, title_of
from teacher_infer.rankers.base import Ranked, Rows, padded
from teacher_infer.rankers.teacher import Teacher
from teacher_infer.stats import Stats, list_gains

REMEMBERED_BYTES = 256 << 20


class Ground:
    """Generated titles among the item embeddings of the same model."""

    kind: ScoreKind = "distance"
    asks = ("embed",)
    takes_answers = True

    def __init__(
        self,
        titles: Sequence[str],
        items_NE: Tensor,
        catalogue: Catalogue,
        embedder: Callable[[], VllmEngine],
        config: LabelConfig,
    ) -> None:
        self._titles, self._items_NE, self._catalogue, self._config = titles, items_NE, catalogue, config
        self._embedder = embedder
        self._place_of: dict[str, int] = {}
        for place, title in enumerate(titles):
            # As it reads in an answer, where quotes inside it are apostrophes.
            self._place_of.setdefault(title_of(response(title)), place)
        self._points: dict[str, Tensor] = {}

    @classmethod
    def open(cls, teacher: Teacher) -> Self:
        """See :class:`teacher_infer.rankers.base.Ranker`."""
        items_NE = teacher.items()
        catalogue = teacher.catalogue(items_NE, cls.kind)
        return cls(teacher.titles, items_NE, catalogue, lambda: teacher.engines("embed"), teacher.config)

    def rank(self, rows: Rows) -> Ranked:
        """See :class:`teacher_infer.rankers.base.Ranker`."""
        started, answers = time.perf_counter(), rows.answers or ()
        texts = [title_of(answer.text) for answer in answers]
        points = self._embedded(list(dict.fromkeys(texts)))
        points_BE = torch.stack([points[text] for text in texts])
        excluded = padded(rows.history, len(self._titles)) if self._config.exclude_history else None
        ranking = self._catalogue.rank(points_BE, self._config.top_k, excluded)
        target_scores = self._catalogue.scores(points_BE, rows.target)
        stats = Stats(
            rows=len(texts),
            dropped_titles=sum(answer.dropped for answer in answers),
            valid=sum(text in self._place_of for text in texts),
            seconds=time.perf_counter() - started,
            gains=list_gains(ranking.items, rows.target),
        )
        return Ranked(ranking.items, ranking.scores, target_scores, texts, stats)

    def _embedded(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings [E] of generated titles; those of the catalogue are known, others are embedded once."""
        known = [text for text in texts if text in self._place_of]
        values_KE = self._items_NE[torch.tensor([self._place_of[text] for text in known], dtype=torch.int64)]
        points = dict(zip(known, values_KE.float(), strict=True))
        unknown = [text for text in texts if text not in points and text not in self._points]
        if unknown:
            if len(self._points) * 4 * self._items_NE.shape[1] > REMEMBERED_BYTES:
                self._points.clear()
                unknown = [text for text in texts if text not in points]
            values = self._embedder().embed([embedded(text) for text in unknown])
            self._points |= dict(zip(unknown, values, strict=True))
        return points | {text: self._points[text] for text in texts if text not in points}
