"""Nearest items of the catalogue, in blocks, without sorting it and without losing accuracy to cancellation.

A first pass picks candidates by ``|q|² - 2qe + |e|²`` in float64, block by block. The candidates are then scored
exactly, from the differences, and ordered by (score, item index). A row whose candidates do not clearly hold all of its
nearest items, because many items lie at the same distance, is scored exactly against the whole catalogue.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from data_prep.schema import ScoreKind

SPARE = 16  # candidates beyond K: enough for ordinary ties
TOLERANCE = 1e-10  # relative error of the first pass, far above that of float64


@dataclass(frozen=True)
class Block:
    """The largest score matrix that is ever held."""

    rows: int = 256
    items: int = 16384


@dataclass(frozen=True)
class Ranking:
    """The nearest K items of Q queries: items [Q, K] int64, best first, and their scores [Q, K] float32."""

    items: Tensor
    scores: Tensor


class Catalogue:
    """Item embeddings [N, E] to rank by L2 distance (smaller is better) or cosine (larger is better)."""

    def __init__(self, embeddings_NE: Tensor, kind: ScoreKind, block: Block = Block()) -> None:
        self.kind = kind
        self.block = block
        self.items_NE = self._space(embeddings_NE)
        self.squares_N = self.items_NE.square().sum(1)

    def __len__(self) -> int:
        return len(self.items_NE)

    def rank(self, queries_QE: Tensor, k: int, excluded_QL: Tensor | None = None) -> Ranking:
        """The nearest ``k`` items of every query; equal scores are ordered by item index.

        Args:
            queries_QE: query embeddings.
            k: items per query; at most N less the excluded ones.
            excluded_QL: item indices to leave out of each query's list; values of N and more mean none.
        """
        ranked = []
        for start in range(0, len(queries_QE), self.block.rows):
            rows = slice(start, start + self.block.rows)
            ranked.append(self._rank_rows(queries_QE[rows], k, None if excluded_QL is None else excluded_QL[rows]))
        if not ranked:
            return Ranking(torch.empty(0, k, dtype=torch.int64), torch.empty(0, k))
        return Ranking(torch.cat([r.items for r in ranked]), torch.cat([r.scores for r in ranked]))

    def scores(self, queries_QE: Tensor, items_Q: Tensor) -> Tensor:
        """The score [Q] float32 of one item per query, excluded or not."""
        squared = _squared_distances(self._space(queries_QE), self.items_NE[items_Q][:, None])
        return self._scores(squared)[:, 0]

    def _space(self, embeddings: Tensor) -> Tensor:
        # Between unit vectors cosine = 1 - d²/2, so one ranking by distance serves both kinds.
        embeddings = embeddings.double()
        return functional.normalize(embeddings, dim=-1) if self.kind == "cosine" else embeddings

    def _scores(self, squared: Tensor) -> Tensor:
        return (1 - squared / 2 if self.kind == "cosine" else squared.sqrt()).float()

    def _rank_rows(self, queries_BE: Tensor, k: int, excluded_BL: Tensor | None) -> Ranking:
        queries_BE = self._space(queries_BE)
        width = min(k + SPARE, len(self.items_NE))
        near_BC, items_BC = self._candidates(queries_BE, width, excluded_BL)
        exact_BC = _squared_distances(queries_BE, self.items_NE[items_BC]).masked_fill(near_BC.isinf(), torch.inf)
        squared_BK, items_BK = _first(exact_BC, items_BC, k)
        margin_B = TOLERANCE * (queries_BE.square().sum(1) + self.squares_N.max())
        unsure_B = near_BC[:, -1] <= squared_BK[:, -1] + margin_B if width < len(self.items_NE) else torch.zeros(0)
        for row in unsure_B.nonzero()[:, 0].tolist():
            excluded_L = None if excluded_BL is None else excluded_BL[row]
            squared_BK[row], items_BK[row] = self._rank_exactly(queries_BE[row], k, excluded_L)
        return Ranking(items_BK, self._scores(squared_BK))

    def _candidates(self, queries_BE: Tensor, width: int, excluded_BL: Tensor | None) -> tuple[Tensor, Tensor]:
        """The nearest ``width`` items by the first pass: squared distances and items, both [B, C], nearest first."""
        near_B1 = queries_BE.square().sum(1, keepdim=True)
        best = torch.empty(len(queries_BE), 0, dtype=torch.float64)
        best_items = torch.empty(len(queries_BE), 0, dtype=torch.int64)
        for start in range(0, len(self.items_NE), self.block.items):
            items = slice(start, start + self.block.items)
            squared_BM = near_B1 + self.squares_N[items] - 2 * queries_BE @ self.items_NE[items].T
            if excluded_BL is not None:
                _mask(squared_BM, excluded_BL - start)
            block_best, at = squared_BM.topk(min(width, squared_BM.shape[1]), dim=1, largest=False)
            best, best_items = torch.cat([best, block_best], 1), torch.cat([best_items, at + start], 1)
            best, at = best.topk(min(width, best.shape[1]), dim=1, largest=False)
            best_items = best_items.gather(1, at)
        return best, best_items

    def _rank_exactly(self, query_E: Tensor, k: int, excluded_L: Tensor | None) -> tuple[Tensor, Tensor]:
        blocks = [_squared_distances(query_E[None], block[None]) for block in self.items_NE.split(self.block.items)]
        squared_1N = torch.cat(blocks, 1)
        if excluded_L is not None:
            _mask(squared_1N, excluded_L[None])
        squared, items = _first(squared_1N, torch.arange(squared_1N.shape[1])[None], k)
        return squared[0], items[0]


def _squared_distances(queries_BE: Tensor, items_BCE: Tensor) -> Tensor:
    """Squared distances [B, C] from differences, so that equal embeddings give exactly 0 and equal ones tie exactly."""
    return (queries_BE[:, None] - items_BCE).square().sum(-1)


def _mask(squared_BM: Tensor, columns_BL: Tensor) -> None:
    """Put infinity at ``columns_BL`` of each row; columns outside the matrix are ignored."""
    inside = (columns_BL >= 0) & (columns_BL < squared_BM.shape[1])
    rows, at = inside.nonzero(as_tuple=True)
    squared_BM[rows, columns_BL[rows, at]] = torch.inf


def _first(squared_BC: Tensor, items_BC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first ``k`` of each row ordered by (squared distance, item index)."""
    by_item = items_BC.argsort(1)
    squared_BC, items_BC = squared_BC.gather(1, by_item), items_BC.gather(1, by_item)
    order = squared_BC.argsort(dim=1, stable=True)[:, :k]
    return squared_BC.gather(1, order), items_BC.gather(1, order)
