"""``beam`` and ``score``: titles of the catalogue by the log-probability that the teacher gives them."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Self

import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch

from cluster.files import parquet_dataset
from data_prep.schema import ScoreKind, label_files
from teacher_infer.beam_search import Found, search
from teacher_infer.config import LabelConfig
from teacher_infer.engine import VllmEngine
from teacher_infer.rankers.base import Ranked, Rows, RowsRefused
from teacher_infer.rankers.teacher import Teacher
from teacher_infer.stats import Stats, list_gains
from teacher_infer.trie import TitleTrie

Key = tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]


class Likelihood:
    """A causal LM that is asked for the likeliest of the titles there are, so that every answer is an item."""

    kind: ScoreKind = "logprob"
    asks = ("generate",)

    def __init__(
        self,
        titles: Sequence[str],
        generator: Callable[[], VllmEngine],
        config: LabelConfig,
        trie: TitleTrie | None = None,
    ) -> None:
        self._titles, self._generator, self._config, self._built = titles, generator, config, trie
        self._lists: ds.Dataset | None = None
        if config.candidates:
            files = [file for split in config.splits for file in label_files(config.candidates, split)]
            self._lists = parquet_dataset(files)

    @classmethod
    def open(cls, teacher: Teacher) -> Self:
        """See :class:`teacher_infer.rankers.base.Ranker`."""
        return cls(teacher.titles, lambda: teacher.engines("generate"), teacher.config, teacher.trie())

    @cached_property
    def _trie(self) -> TitleTrie:
        return self._built or TitleTrie(self._generator().title_tokens(self._titles))

    def rank(self, rows: Rows) -> Ranked:
        """See :class:`teacher_infer.rankers.base.Ranker`."""
        candidates = self._candidates(rows.row_id)
        keys = [self._key(history, listed) for history, listed in zip(rows.history, candidates, strict=True)]
        if self._lists is not None:
            self._check_enough(rows.row_id, keys)
        engine, trie = self._generator(), self._trie
        started = time.perf_counter()
        targets: dict[Key, list[int]] = {key: [] for key in keys}
        for key, target in zip(keys, rows.target.tolist(), strict=True):
            targets[key].append(target)
        distinct = list(targets)
        found = search(
            engine,
            [titles for titles, *_ in distinct],
            trie,
            self._config.top_k,
            self._config.beams,
            candidates=[listed for *_, listed in distinct] if self._config.candidates else None,
            excluded=[left_out for _, left_out, _ in distinct],
            targets=list(targets.values()),
            normalise=self._config.length_normalised,
        )
        found_of = dict(zip(distinct, found, strict=True))
        return self._ranked([found_of[key] for key in keys], found, rows, time.perf_counter() - started)

    def _key(self, history: Sequence[int], candidates: Sequence[int]) -> Key:
        """All that the answer to a row depends on; rows that share it differ in their targets at most."""
        left_out = tuple(sorted(set(history))) if self._config.exclude_history else ()
        return tuple(self._titles[item] for item in history), left_out, tuple(candidates)

    def _check_enough(self, row_ids: Sequence[int], keys: Sequence[Key]) -> None:
        left = {row_id: len({*listed} - {*out}) for row_id, (_, out, listed) in zip(row_ids, keys, strict=True)}
        few = {row_id: count for row_id, count in left.items() if count < self._config.top_k}
        if few:
            raise RowsRefused(
                {row_id: f"{n} candidates to rank, --top-k asks for {self._config.top_k}" for row_id, n in few.items()}
            )

    def _ranked(self, answers: Sequence[Found], found: Sequence[Found], rows: Rows, seconds: float) -> Ranked:
        items = torch.tensor([answer.items for answer in answers])
        stats = Stats(
            rows=len(answers),
            prompts=len(found),
            prompt_tokens=sum(one.tokens for one in found),
            cached_tokens=sum(one.cached for one in found),
            dropped_titles=sum(answer.dropped for answer in answers),
            valid=len(answers),
            seconds=seconds,
            gains=list_gains(items, rows.target),
        )
        scores = torch.tensor([answer.logprobs for answer in answers], dtype=torch.float32)
        asked = zip(answers, rows.target.tolist(), strict=True)
        targets = torch.tensor([answer.target_logprobs[target] for answer, target in asked], dtype=torch.float32)
        return Ranked(items, scores, targets, [self._titles[answer.items[0]] for answer in answers], stats)

    def _candidates(self, row_ids: Sequence[int]) -> list[list[int]]:
        """The items to choose from, per row; empty lists where the whole catalogue is to."""
        if self._lists is None:
            return [[] for _ in row_ids]
        row_id = pc.field("row_id")
        wanted = (row_id >= min(row_ids)) & (row_id <= max(row_ids)) & row_id.isin(list(row_ids))
        table = self._lists.to_table(columns=["row_id", "items"], filter=wanted)
        listed = dict(zip(table["row_id"].to_pylist(), table["items"].to_pylist(), strict=True))
        return [listed.get(row_id, []) for row_id in row_ids]
