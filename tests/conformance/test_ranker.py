"""Our own rankers pass the check that a user's must pass; rankers that break a promise are named."""

from dataclasses import replace

import pytest
import torch

from conformance import check_ranker
from conformance.promise import ConformanceError
from teacher_infer.config import LabelConfig
from teacher_infer.nearest import Catalogue
from teacher_infer.rankers.base import Ranked, Rows
from teacher_infer.rankers.embed import Embed

N, K = 40, 6


class Reversed(Embed):
    def rank(self, rows: Rows) -> Ranked:
        ranked = super().rank(rows)
        return replace(ranked, items=ranked.items.flip(1), scores=ranked.scores.flip(1))


class Repeats(Embed):
    def rank(self, rows: Rows) -> Ranked:
        ranked = super().rank(rows)
        return replace(ranked, items=ranked.items[:, :1].expand(-1, K))


class RanksTheBatch(Embed):
    def rank(self, rows: Rows) -> Ranked:
        ranked = super().rank(rows)
        return replace(ranked, items=(ranked.items + len(rows.history)) % N)


def built(kind: type[Embed], exclude: bool = False) -> Embed:
    items_NE = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
    config = LabelConfig(ranking="embed", top_k=K, exclude_history=exclude)
    titles = [f"Title {at}" for at in range(N)]
    return kind(titles, items_NE, Catalogue(items_NE, Embed.kind), lambda: pytest.fail("no engine"), None, config)


@pytest.mark.parametrize("exclude", [True, False])
def test_the_ranker_by_embeddings_conforms(exclude: bool) -> None:
    check_ranker(built(Embed, exclude), N, K, exclude_history=exclude)


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        (Reversed, "lists the best item first"),
        (Repeats, "lists no item twice"),
        (RanksTheBatch, "the same way whatever rows are beside it|as it does in the list"),
    ],
)
def test_a_ranker_that_breaks_a_promise_is_named(kind: type[Embed], broken: str) -> None:
    with pytest.raises(ConformanceError, match=broken):
        check_ranker(built(kind), N, K)


def test_a_ranker_that_lists_the_history_is_named() -> None:
    with pytest.raises(ConformanceError, match="leaves the items of the history out"):
        check_ranker(built(Embed), N, K, exclude_history=True)
