"""What labelling takes and gives, added up over rows, shards and engines."""

from collections.abc import Iterable
from typing import Self

import torch
from pydantic import BaseModel
from torch import Tensor

from data_prep.metrics import METRICS, gains

NOT_FOUND = 10**9


class Stats(BaseModel):
    """Sums; a JSON file beside every committed shard."""

    rows: int = 0
    """Labelled rows."""
    failed: int = 0
    prompts: int = 0
    """Prompts that an engine answered: those of rows that read alike count once."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the prefix cache had."""
    new_tokens: int = 0
    dropped_titles: int = 0
    """Oldest history titles that prompts had no room for."""
    valid: int = 0
    """Rows whose answer is a title of the catalogue."""
    seconds: float = 0.0
    """Engine and ranking time; start-up is not counted."""
    gains: list[float] = [0.0] * len(METRICS)
    """Sums of the metrics of the teacher's lists."""

    def __add__(self, other: Self) -> Self:
        mine, theirs = self.model_dump(), other.model_dump()
        total = {name: mine[name] + theirs[name] for name in mine if name != "gains"}
        total["gains"] = [a + b for a, b in zip(self.gains, other.gains, strict=True)]
        return type(self).model_validate(total)

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Self:
        """The sum of many."""
        return sum(parts, start=cls())

    def metrics(self, top_k: int) -> dict[str, float]:
        """HR@K, NDCG@K and MRR@K (one true item, full ranking) for the cutoffs that the lists are long enough for."""
        if not self.rows:
            return {}
        means = {name: total / self.rows for name, total in zip(METRICS, self.gains, strict=True)}
        return {name: value for name, value in means.items() if int(name.partition("@")[2]) <= top_k}


def list_gains(items_BK: Tensor, target_B: Tensor) -> list[float]:
    """Sums of the metrics of lists with one true item each; one that is not in its list counts as not found."""
    found_BK = items_BK == target_B[:, None]
    rank_B = torch.where(found_BK.any(1), found_BK.int().argmax(1) + 1, NOT_FOUND)
    return gains(rank_B).sum(0).tolist()
