"""Nearest items of the catalogue: exact, in blocks of bounded memory.

A float32 matrix product gives a lower bound on the distance of each item to a query. Items whose bound is within reach
of the K best are measured in float64, pair by pair, and ordered by (distance, item index). The result is therefore
exact, and the list of a query depends neither on the queries beside it nor on the size of the blocks.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cluster.errors import ConfigError, DataError
from cluster.files import local_copy
from data_prep.schema import EMBEDDINGS_TENSOR, ScoreKind

MEMORY = 512 << 20
MARGIN = 44  # candidates beyond K: enough unless many items are equally far
CACHE = 2 << 20  # bytes of float64 at work at a time, which a CPU's cache holds
LEAST = 16  # rows of a block
EACH = (
    "donot_use_mm_for_euclid_dist"  # each distance by itself, in an order of additions that no number of rows changes
)


class Ranking(NamedTuple):
    """The nearest K items of Q queries: items [Q, K] int64, best first, and their scores [Q, K] float32."""

    items: Tensor
    scores: Tensor


def read_items(file: Path) -> Tensor:
    """The item embeddings [N, E] in a safetensors file, memory-mapped: rows are read where they are used.

    Raises:
        DataError: the file holds no item embeddings.
    """
    try:
        return load_file(local_copy(file))[EMBEDDINGS_TENSOR]
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f"{file}: no item embeddings can be read ({error}): run `dllm2rec label` again") from None


class Catalogue:
    """Item embeddings [N, E] to rank by L2 distance (smaller is better) or cosine (larger is better).

    ``memory`` bounds the bytes taken beside the embeddings, the queries, the rankings and one number per item.
    ``device`` is where distances are computed, wherever the embeddings are.

    Raises:
        ConfigError: the memory does not suffice for embeddings of this width.
        DataError: embeddings hold values that are not finite.
    """

    def __init__(
        self, items_NE: Tensor, kind: ScoreKind, memory: int = MEMORY, device: torch.device | str = "cpu"
    ) -> None:
        self.kind, self._items_NE, self._device = kind, items_NE, torch.device(device)
        count, width = items_NE.shape
        share = memory // 4  # a block of items takes 1.5 shares, of queries and of their distances 1 at most
        self._block = min(share // (8 * width), math.isqrt(share // 4))
        self._pairs = max(1, min(share // torch.get_num_threads(), CACHE) // (16 * width))
        if self._block < LEAST:
            raise ConfigError(
                f"--grounding-memory {memory}: embeddings of width {width} need at least {32 * LEAST * width}"
            )
        # Less their mean, crowded points have small coordinates, of which float32 holds more digits.
        self._centre_E = torch.zeros(width, device=self._device)
        self._centre_E = self._points(items_NE[:: -(-count // self._block)]).mean(0)
        self._squares_N = torch.cat(
            [_squares(self._points(block_ME)) for block_ME in items_NE.split(self._block // LEAST)]
        )
        if not self._squares_N.isfinite().all():
            raise DataError("item embeddings hold values that are not finite: the teacher's model is broken")
        # A float32 dot product of E numbers is off by E roundings of |x| |y| ≤ (x² + y²) / 2 at most, in any order.
        self._error = (width + LEAST) * torch.finfo(torch.float32).eps / 2

    def __len__(self) -> int:
        return len(self._items_NE)

    def rank(self, queries_QE: Tensor, k: int, excluded_QL: Tensor | None = None) -> Ranking:
        """The nearest ``k`` items of every query; equal scores are ordered by item index.

        Args:
            queries_QE: query embeddings.
            k: items per query.
            excluded_QL: item indices to leave out of each query's list; values of N and more mean none.

        Raises:
            ValueError: a query is not finite, or fewer than ``k`` items are left to rank.
        """
        if not queries_QE.sum().isfinite():
            raise ValueError("the embedding of an answer or a history is not finite")
        if excluded_QL is None:
            excluded_QL = torch.empty(len(queries_QE), 0, dtype=torch.int64)
        distances_QK = torch.empty(len(queries_QE), k, dtype=torch.float64)
        items_QK = torch.empty(len(queries_QE), k, dtype=torch.int64)
        unsure_U, candidates = torch.arange(len(queries_QE)), k + MARGIN
        while len(unsure_U):
            candidates = min(candidates, len(self))
            certain = list[Tensor]()
            for rows_B in unsure_U.split(max(1, min(self._block, self._block**2 // (8 * candidates)))):
                found = self._rank_block(queries_QE[rows_B], excluded_QL[rows_B].to(self._device), k, candidates)
                distances_QK[rows_B], items_QK[rows_B], certain_B = (part.cpu() for part in found)
                certain.append(certain_B)
            unsure_U = unsure_U[~torch.cat(certain)]
            candidates *= 8
        return Ranking(items_QK, self._scores(distances_QK))

    def scores(self, queries_QE: Tensor, items_Q: Tensor) -> Tensor:
        """The score [Q] float32 of one item per query, excluded or not."""
        items_Q1 = items_Q[:, None].to(self._device)
        return self._scores(
            self._measure(queries_QE, items_Q1, torch.ones_like(items_Q1, dtype=torch.bool))[:, 0]
        ).cpu()

    def _scores(self, distances: Tensor) -> Tensor:
        return (1 - distances.square() / 2 if self.kind == "cosine" else distances).float()

    def _rank_block(
        self, queries_BE: Tensor, excluded_BL: Tensor, k: int, candidates: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest of some candidates: distances [B, k] float64, items [B, k], and whether no item is missed [B]."""
        points_BE = self._points(queries_BE)
        bounds_BC = torch.full((len(points_BE), candidates), torch.inf, device=self._device)
        items_BC = torch.zeros_like(bounds_BC, dtype=torch.int64)
        for start, bounds_BM in self._bounds(points_BE, excluded_BL):
            best, at = bounds_BM.topk(min(candidates, bounds_BM.shape[1]), largest=False, sorted=False)
            bounds_BC, order = torch.cat([bounds_BC, best], 1).topk(candidates, largest=False)
            items_BC = torch.cat([items_BC, at + start], 1).gather(1, order)
        # Distances are above their bounds by twice the error at most, so k of them are within this reach.
        above_BC = bounds_BC + 2 * self._error * self._squares_N[items_BC]
        reach_B1 = above_BC.kthvalue(k, 1, keepdim=True).values + 2 * self._error * _squares(points_BE)[:, None]
        if not reach_B1.isfinite().all():
            raise ValueError(f"fewer than {k} items are left to rank")
        distances_BC = self._measure(queries_BE, items_BC, bounds_BC <= reach_B1)
        certain_B = (bounds_BC[:, -1] > reach_B1[:, 0]) | (candidates == len(self))
        return *_first(distances_BC, items_BC, k), certain_B

    def _bounds(self, points_BE: Tensor, excluded_BL: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Per block of items its first one and lower bounds [B, M] on squared distances.

        The bounds lack the square and the error of the query, which are the same for all items; those of excluded items
        are infinite.
        """
        for start in range(0, len(self), self._block):
            points_ME = self._points(self._items_NE[start : start + self._block])
            squares_M = self._squares_N[start : start + self._block] * (1 - self._error)
            bounds_BM = torch.addmm(squares_M, points_BE, points_ME.T, alpha=-2)
            columns_BL = excluded_BL - start
            rows, at = ((columns_BL >= 0) & (columns_BL < len(points_ME))).nonzero(as_tuple=True)
            bounds_BM[rows, columns_BL[rows, at]] = torch.inf
            yield start, bounds_BM

    def _points(self, embeddings_BE: Tensor) -> Tensor:
        """Embeddings as float32 points on the device, less the centre; cosine is ``1 - distance² / 2`` of units."""
        points_BE = embeddings_BE.to(self._device).float()
        return ((_units(points_BE) if self.kind == "cosine" else points_BE) - self._centre_E).float()

    def _exact(self, embeddings_RE: Tensor, rows_P: Tensor) -> Tensor:
        """Some rows [P, E] as they are, or as units, in float64 on the device."""
        points_PE = embeddings_RE.index_select(0, rows_P.to(embeddings_RE.device)).to(self._device).float()
        return _units(points_PE) if self.kind == "cosine" else points_PE.double()

    def _measure(self, queries_BE: Tensor, items_BC: Tensor, needed_BC: Tensor) -> Tensor:
        """Distances [B, C] float64, each computed by itself; infinite where not needed."""
        distances_BC = torch.full(items_BC.shape, torch.inf, dtype=torch.float64, device=self._device)
        rows_P, columns_P = needed_BC.nonzero(as_tuple=True)

        def measure(rows: Tensor, columns: Tensor) -> None:
            queries_P1E = self._exact(queries_BE, rows)[:, None]
            points_P1E = self._exact(self._items_NE, items_BC[rows, columns])[:, None]
            distances_BC[rows, columns] = torch.cdist(queries_P1E, points_P1E, compute_mode=EACH)[:, 0, 0]

        # Cores that share tensors of this size wait for each other most of the time, so each measures by itself.
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(measure, rows_P.split(self._pairs), columns_P.split(self._pairs)))
        finally:
            torch.set_num_threads(threads)
        return distances_BC


def _squares(points_BE: Tensor) -> Tensor:
    return _lengths(points_BE.double()).square().float()


def _units(points_BE: Tensor) -> Tensor:
    doubles_BE = points_BE.double()
    return doubles_BE.div_(_lengths(doubles_BE).clamp_min_(1e-12)[:, None])


def _lengths(vectors_BE: Tensor) -> Tensor:
    origin_1E = vectors_BE.new_zeros(1, vectors_BE.shape[1])
    return torch.cdist(vectors_BE, origin_1E, compute_mode=EACH)[:, 0]


def _first(distances_BC: Tensor, items_BC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first ``k`` of each row ordered by (distance, item index)."""
    items_BC, by_item = items_BC.sort(1)
    distances_BC, order = distances_BC.gather(1, by_item).sort(dim=1, stable=True)
    return distances_BC[:, :k], items_BC.gather(1, order[:, :k])
