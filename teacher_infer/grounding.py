"""Nearest items of the catalogue: exact, in blocks of bounded memory, without sorting the catalogue.

A first pass over the catalogue picks candidates by their distance on a grid of small integers (:mod:`grid`). The
candidates are then measured exactly (:mod:`exact`) and ordered by (distance, item index). The grid's error bound says
which candidates need no measuring, and which rows may have nearer items beyond their candidates; these rows get more
candidates, and in the end the whole catalogue.
Scores and items of a row never depend on the rows or blocks beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cluster.errors import ConfigError, DataError
from data_prep.schema import ScoreKind
from teacher_infer.blocks import each_core, slices
from teacher_infer.copies import copy_numbers
from teacher_infer.exact import Exact
from teacher_infer.grid import OUT, Grid, Placed, filled, near
from teacher_infer.item_file import ItemFile, ItemRows

MEMORY = 512 << 20
SPARE = 44  # candidates beyond K: enough where the data have no crowds
MANY = 1024  # candidates of rows for which that was not enough
STRIDE = 4  # candidates at least that are measured before the bound is asked again
DEPTH = 16  # grid distances of which only the smallest is looked at first
SAMPLE = 2048  # items that the grid is fitted to


@dataclass(frozen=True)
class Ranking:
    """The nearest K items of Q queries: items [Q, K] int64, best first, and their scores [Q, K] float32."""

    items: Tensor
    scores: Tensor


class Catalogue:
    """Item embeddings [N, E] to rank by L2 distance (smaller is better) or cosine (larger is better).

    ``memory`` bounds the bytes taken beside the embeddings, the queries, the rankings and a few numbers per item;
    ``device`` is where distances are computed, whatever device or file the embeddings are on.

    Raises:
        ConfigError: the memory does not suffice for embeddings of this width.
        DataError: embeddings hold values that are not finite.
    """

    def __init__(
        self, embeddings_NE: ItemRows, kind: ScoreKind, memory: int = MEMORY, device: torch.device | str = "cpu"
    ) -> None:
        self.kind = kind
        self._items_NE = embeddings_NE
        self._count, self._width = embeddings_NE.shape
        self._device = torch.device(device)
        least = 8 * max(64 * filled(self._width), 32 * MANY)
        if memory < least:
            raise ConfigError(f"--grounding-memory {memory}: embeddings of width {self._width} need at least {least}")
        self._share = memory // 8  # queries, candidates, grid distances, exact ones: one each; items: two
        self._exact = Exact(embeddings_NE, kind, self._device, self._share)
        sample = min(self._count, SAMPLE, self._share // (32 * self._width))
        numbers_S = torch.arange(sample) * self._count // sample
        self._grid = Grid.fit(self._exact.points(embeddings_NE[numbers_S]))
        self._copy_N = copy_numbers(embeddings_NE, self._share).to(self._device)
        # Small enough to be kept, the grid positions are computed once; else anew for every call of `rank`.
        self._kept = list(self._place_blocks()) if self._count * filled(self._width) <= 2 * self._share else None

    @classmethod
    def open(cls, file: Path, kind: ScoreKind, memory: int = MEMORY, device: torch.device | str = "cpu") -> "Catalogue":
        """The catalogue in a safetensors file, of which only the rows at work are in memory.

        Raises:
            ConfigError: the memory does not suffice for embeddings of this width.
            DataError: the file is not one of item embeddings.
        """
        return cls(ItemFile(file), kind, memory, device)

    def __len__(self) -> int:
        return self._count

    def rank(self, queries_QE: Tensor, k: int, excluded_QL: Tensor | None = None) -> Ranking:
        """The nearest ``k`` items of every query; equal scores are ordered by item index.

        Args:
            queries_QE: query embeddings.
            k: items per query; at most N less the excluded ones.
            excluded_QL: item indices to leave out of each query's list; values of N and more mean none.

        Raises:
            ValueError: a query is not finite.
        """
        if not queries_QE.sum().isfinite():
            raise ValueError("the embedding of an answer or a history is not finite")
        items_QK = torch.empty(len(queries_QE), k, dtype=torch.int64)
        scores_QK = torch.empty(len(queries_QE), k)
        for rows in slices(len(queries_QE), self._share // filled(self._width)):
            excluded_BL = None if excluded_QL is None else excluded_QL[rows].to(self._device)
            nearest = _Nearest(queries_QE[rows], excluded_BL, k)
            self._rank_rows(nearest)
            items_QK[rows] = nearest.items_BK
            scores_QK[rows] = self._scores(nearest.distances_BK)
        return Ranking(items_QK, scores_QK)

    def scores(self, queries_QE: Tensor, items_Q: Tensor) -> Tensor:
        """The score [Q] float32 of one item per query, excluded or not."""
        distances_Q1 = self._exact.distances(queries_QE, torch.arange(len(queries_QE)), items_Q[:, None])
        return self._scores(distances_Q1[:, 0]).cpu()

    def _scores(self, distances: Tensor) -> Tensor:
        return (1 - distances.square() / 2 if self.kind == "cosine" else distances).float()

    def _place(self, embeddings_NE: ItemRows, first: int, count: int) -> Placed:
        """Grid positions of some rows of items or queries."""
        placed = Placed.empty(count, self._width, self._device)

        def place(rows: slice) -> None:
            placed[rows] = self._grid.place(
                self._exact.points(embeddings_NE[slice(first + rows.start, first + rows.stop)])
            )
            if not placed.lengths[rows].isfinite().all():
                raise DataError("item embeddings hold values that are not finite: the teacher's model is broken")

        each_core(place, slices(count, self._exact.rows), self._device)
        return placed

    def _place_blocks(self) -> Iterator[tuple[int, Placed]]:
        for block in slices(self._count, self._share // filled(self._width)):
            yield block.start, self._place(self._items_NE, block.start, block.stop - block.start)

    def _rank_rows(self, nearest: "_Nearest") -> None:
        queries = self._place(nearest.queries_BE, 0, len(nearest.queries_BE))
        unsure_P = torch.arange(len(nearest.queries_BE))
        for spare in (SPARE, MANY):
            width = min(nearest.k + spare, self._count)
            parts = unsure_P.split(max(1, self._share // (64 * width)))
            certain = [self._rank_candidates(nearest, queries[part_P], part_P, width) for part_P in parts]
            unsure_P = unsure_P[~torch.cat(certain)]
            if not len(unsure_P):
                return
        self._rank_exactly(nearest, unsure_P)

    def _surplus(self, start: int, count: int, k: int, excluded_BL: Tensor | None) -> Tensor:
        """Which items [count] from ``start`` on have so many copies before them that they are in no list."""
        excluded = 0 if excluded_BL is None else excluded_BL.shape[1]
        return self._copy_N[start : start + count] >= k + excluded

    def _candidates(self, queries: Placed, excluded_BL: Tensor | None, k: int, width: int) -> tuple[Tensor, Tensor]:
        """The ``width`` items nearest on the grid, nearest first: what :func:`near` says, and items, both [B, C]."""
        shape = len(queries.squares), width
        near_BC = torch.full(shape, OUT, dtype=torch.int32, device=self._device)
        items_BC = torch.zeros(shape, dtype=torch.int64, device=self._device)
        for start, block in self._kept or self._place_blocks():
            count = len(block.squares)
            surplus_M = self._surplus(start, count, k, excluded_BL)
            some_surplus = bool(surplus_M.any())
            parts = slices(shape[0], self._share // (4 * count))
            # One buffer for all: fresh memory costs as much as what is put into it.
            buffer_BM = torch.empty(parts[0].stop, count, dtype=torch.int32, device=self._device)
            for rows in parts:
                near_BM = near(queries[rows], block, buffer_BM[: rows.stop - rows.start])
                if some_surplus:
                    near_BM.masked_fill_(surplus_M, OUT)
                if excluded_BL is not None:
                    _mask(near_BM, excluded_BL[rows] - start, OUT)
                best, at = _smallest(near_BM, min(width, count))
                best, at = torch.cat([near_BC[rows], best], 1), torch.cat([items_BC[rows], at + start], 1)
                near_BC[rows], order = best.topk(width, largest=False)
                items_BC[rows] = at.gather(1, order)
        return near_BC, items_BC

    def _rank_candidates(self, nearest: "_Nearest", queries: Placed, rows_P: Tensor, width: int) -> Tensor:
        """Rank some rows among their candidates; [P] bool says of which rows that is all there is to know."""
        excluded_PL = None if nearest.excluded_BL is None else nearest.excluded_BL[rows_P]
        near_PC, items_PC = self._candidates(queries, excluded_PL, nearest.k, width)
        distances_PC = torch.full(near_PC.shape, torch.inf, dtype=torch.float64, device=self._device)
        reach_P = torch.full((len(rows_P),), torch.inf, dtype=torch.float64, device=self._device)
        for columns in _columns(nearest.k, width):
            # The nearest on the grid come first: beyond the reach of the K nearest so far, no candidate is nearer.
            open_R = (near_PC[:, columns.start] <= reach_P).nonzero()[:, 0].cpu()
            if not len(open_R):
                break
            distances_RC = self._exact.distances(nearest.queries_BE, rows_P[open_R], items_PC[open_R, columns])
            distances_PC[open_R, columns] = distances_RC.masked_fill_(near_PC[open_R, columns] == OUT, torch.inf)
            farthest_R = distances_PC[open_R].kthvalue(nearest.k).values
            reach_P[open_R] = self._grid.reach(farthest_R, queries.lengths[open_R]) - queries.squares[open_R]
        nearest.put(rows_P, *_first(distances_PC, items_PC, nearest.k))
        if width == self._count:
            return torch.ones(len(rows_P), dtype=torch.bool)
        return (near_PC[:, -1] > reach_P).cpu()

    def _rank_exactly(self, nearest: "_Nearest", rows_P: Tensor) -> None:
        """Rank some rows by exact distances to the whole catalogue."""
        distances_PK = torch.full((len(rows_P), nearest.k), torch.inf, dtype=torch.float64, device=self._device)
        items_PK = torch.zeros(distances_PK.shape, dtype=torch.int64, device=self._device)
        for block in slices(self._count, self._share // (32 * self._width)):
            numbers_M = torch.arange(block.start, block.stop, device=self._device)
            surplus_M = self._surplus(block.start, len(numbers_M), nearest.k, nearest.excluded_BL)
            for some in slices(len(rows_P), self._share // (64 * len(numbers_M))):
                rows_B = rows_P[some]
                distances_BM = self._exact.block_distances(nearest.queries_BE[rows_B], block)
                distances_BM.masked_fill_(surplus_M, torch.inf)
                if nearest.excluded_BL is not None:
                    _mask(distances_BM, nearest.excluded_BL[rows_B] - block.start, torch.inf)
                # Earlier items come first among equals.
                distances, order = torch.cat([distances_PK[some], distances_BM], 1).sort(stable=True)
                items = torch.cat([items_PK[some], numbers_M.expand_as(distances_BM)], 1).gather(1, order)
                distances_PK[some], items_PK[some] = distances[:, : nearest.k], items[:, : nearest.k]
        nearest.put(rows_P, distances_PK, items_PK)


class _Nearest:
    """What is asked of B queries, and the distances and items [B, K] found so far."""

    def __init__(self, queries_BE: Tensor, excluded_BL: Tensor | None, k: int) -> None:
        self.queries_BE, self.excluded_BL, self.k = queries_BE, excluded_BL, k
        self.distances_BK = torch.empty(len(queries_BE), k, dtype=torch.float64)
        self.items_BK = torch.empty(len(queries_BE), k, dtype=torch.int64)

    def put(self, rows_P: Tensor, distances_PK: Tensor, items_PK: Tensor) -> None:
        self.distances_BK[rows_P], self.items_BK[rows_P] = distances_PK.cpu(), items_PK.cpu()


def _mask(values_BM: Tensor, columns_BL: Tensor, value: float) -> None:
    """Put ``value`` at ``columns_BL`` of each row; columns outside the matrix are ignored."""
    inside = (columns_BL >= 0) & (columns_BL < values_BM.shape[1])
    rows, at = inside.nonzero(as_tuple=True)
    values_BM[rows, columns_BL[rows, at]] = value


def _columns(k: int, width: int) -> Iterator[slice]:
    """The first ``k`` columns of ``width``, then an eighth more at a time."""
    start, stop = 0, k
    while start < width:
        yield slice(start, stop)
        start, stop = stop, min(stop + max(STRIDE, stop // 8), width)


def _smallest(values_BM: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` smallest values of each row, in any order, and their columns.

    In stacks of ``DEPTH`` values each, they are in the ``count`` stacks with the smallest tops.
    """
    width = values_BM.shape[1] // DEPTH
    if width < 2 * count:
        best, at = values_BM.topk(count, largest=False, sorted=False)
        return best, at
    stacks_BDW = values_BM[:, : DEPTH * width].unflatten(1, (DEPTH, width))
    stack_BC = stacks_BDW.amin(1).topk(count, largest=False, sorted=False).indices
    depths_D1 = torch.arange(0, DEPTH * width, width, device=values_BM.device)[:, None]
    rest = torch.arange(DEPTH * width, values_BM.shape[1], device=values_BM.device)
    columns = torch.cat([(stack_BC[:, None] + depths_D1).flatten(1), rest.expand(len(values_BM), -1)], 1)
    best, at = values_BM.gather(1, columns).topk(count, largest=False, sorted=False)
    return best, columns.gather(1, at)


def _first(distances_BC: Tensor, items_BC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first ``k`` of each row ordered by (distance, item index)."""
    by_item = items_BC.argsort(1)
    distances_BC, items_BC = distances_BC.gather(1, by_item), items_BC.gather(1, by_item)
    order = distances_BC.argsort(dim=1, stable=True)[:, :k]
    return distances_BC.gather(1, order), items_BC.gather(1, order)
