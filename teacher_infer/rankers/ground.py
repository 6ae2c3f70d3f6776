"""``ground``: generate a title, embed it, rank the catalogue by L2 distance (BIGRec, arXiv 2308.08434, section 3)."""

import time
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from data_prep.schema import ScoreKind
from teacher_infer.config import LabelConfig
from teacher_infer.engine import Generated, VllmEngine
from teacher_infer.nearest import Catalogue
from teacher_infer.prompts import embedded, response, title_of
from teacher_infer.rankers.base import Ranked, Rows, padded
from teacher_infer.rankers.teacher import Teacher
from teacher_infer.stats import Stats, list_gains

REMEMBERED = 1_000_000

Prompt = tuple[str, ...]
Engines = Callable[[], VllmEngine]


class Ground:
    """Generated titles among the item embeddings of the same model."""

    kind: ScoreKind = "distance"
    engines = 2

    def __init__(
        self,
        titles: Sequence[str],
        items_NE: Tensor,
        catalogue: Catalogue,
        generator: Engines,
        embedder: Engines,
        config: LabelConfig,
    ) -> None:
        self._titles, self._items_NE, self._catalogue, self._config = titles, items_NE, catalogue, config
        self._generator, self._embedder = generator, embedder
        self._place_of: dict[str, int] = {}
        for place, title in enumerate(titles):
            # As it reads in an answer, where quotes inside it are apostrophes.
            self._place_of.setdefault(title_of(response(title)), place)
        self._answers: dict[Prompt, tuple[Generated, float]] = {}

    @classmethod
    def open(cls, teacher: Teacher) -> Self:
        """See :class:`teacher_infer.rankers.base.Ranker`."""
        items_NE, engines = teacher.items(), teacher.engines
        catalogue = teacher.catalogue(items_NE, cls.kind)
        generator, embedder = (lambda: engines("generate")), (lambda: engines("embed"))
        return cls(teacher.titles, items_NE, catalogue, generator, embedder, teacher.config)

    def rank(self, rows: Rows) -> Ranked:
        """See :class:`teacher_infer.rankers.base.Ranker`."""
        prompts = [tuple(self._titles[item] for item in history) for history in rows.history]
        asked = self._answer(dict.fromkeys(prompts))
        texts = [title_of(self._answers[prompt][0].text) for prompt in prompts]
        started = time.perf_counter()
        points = self._points(list(dict.fromkeys(texts)))
        points_BE = torch.stack([points[text] for text in texts])
        excluded = padded(rows.history, len(self._titles)) if self._config.exclude_history else None
        ranking = self._catalogue.rank(points_BE, self._config.top_k, excluded)
        target_scores = self._catalogue.scores(points_BE, rows.target)
        seconds = time.perf_counter() - started + sum(self._answers[prompt][1] for prompt in set(prompts))
        answers = [self._answers[prompt][0] for prompt in prompts]
        stats = asked + Stats(
            rows=len(texts),
            dropped_titles=sum(answer.dropped for answer in answers),
            valid=sum(text in self._place_of for text in texts),
            seconds=seconds,
            gains=list_gains(ranking.items, rows.target),
        )
        return Ranked(ranking.items, ranking.scores, target_scores, texts, stats)

    def _answer(self, prompts: dict[Prompt, None]) -> Stats:
        """Answer what this engine has not answered before; greedy answers do not depend on when they are asked for."""
        if len(self._answers) > REMEMBERED:
            self._answers.clear()
        new = [prompt for prompt in prompts if prompt not in self._answers]
        if not new:
            return Stats()
        engine = self._generator()
        started = time.perf_counter()
        generated = engine.generate(new, self._config.max_new_tokens, self._config.beams or 1)
        each = (time.perf_counter() - started) / len(new)
        self._answers |= {prompt: (answer, each) for prompt, answer in zip(new, generated, strict=True)}
        return Stats(
            prompts=len(new),
            prompt_tokens=sum(answer.prompt_tokens for answer in generated),
            cached_tokens=sum(answer.cached_tokens for answer in generated),
            new_tokens=sum(answer.new_tokens for answer in generated),
        )

    def _points(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings [E] of generated titles; those of the catalogue are known."""
        known = [text for text in texts if text in self._place_of]
        values_KE = self._items_NE[torch.tensor([self._place_of[text] for text in known], dtype=torch.int64)]
        points = dict(zip(known, values_KE, strict=True))
        unknown = [text for text in texts if text not in points]
        if unknown:
            values = self._embedder().embed([embedded(text) for text in unknown])
            points |= dict(zip(unknown, values, strict=True))
        return points
