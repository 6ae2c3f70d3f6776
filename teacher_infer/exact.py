"""Exact distances between queries and items, from differences in float64.

Every distance is computed by itself: equal embeddings are at distance 0, items with equal embeddings at equal
distances, and a pair's distance never depends on the pairs beside it.
"""

import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeGuard

import torch
from torch import Tensor

from data_prep.schema import ScoreKind
from teacher_infer.item_file import ItemRows

CACHE = 4 << 20  # bytes that one core works on


class Exact:
    """Distances to items [N, E]; ``memory`` bounds what all threads together take, in bytes."""

    def __init__(self, items_NE: ItemRows, kind: ScoreKind, device: torch.device, memory: int) -> None:
        self._items_NE, self._kind, self._device = items_NE, kind, device
        room = min(CACHE, memory // torch.get_num_threads()) if device.type == "cpu" else memory
        self._width = items_NE.shape[1]
        self.pairs = max(1, room // (16 * self._width))
        self.rows = max(1, room // (32 * self._width))
        self._local = threading.local()
        # Products of single pairs cost a fraction of their exact distance, where torch has them without gathering rows.
        self._products = _Products(items_NE) if _has_products(items_NE, kind, device) else None

    def points(self, embeddings_RE: Tensor) -> Tensor:
        """Embeddings as float64 points on the device; unit vectors for cosine, which is ``1 - distance² / 2``."""
        return self._as_points(embeddings_RE, self._empty(len(embeddings_RE)))

    def distances(self, points_BE: Tensor, items_BC: Tensor) -> Tensor:
        """Distances [B, C] float64 of points to some items each."""
        distances_BC = points_BE.new_empty(items_BC.shape)
        columns = max(1, self.pairs // len(points_BE))
        for items_BM, out_BM in zip(items_BC.split(columns, 1), distances_BC.split(columns, 1), strict=True):
            differences = self._gathered(items_BM.flatten())
            differences.view(*items_BM.shape, self._width).sub_(points_BE[:, None])
            out_BM.copy_(_lengths(differences).view(items_BM.shape))
        return distances_BC

    def may_be_within(self, distances_R: Tensor, queries_QE: Tensor, rows_R: Tensor, items_R: Tensor) -> Tensor:
        """Whether pairs of a query and an item may be as near as ``distances_R``; rows ascend. A False is certain."""
        may_R = torch.ones(len(rows_R), dtype=torch.bool, device=self._device)
        products = self._products
        if products is None or queries_QE.dtype != torch.float32:
            return may_R

        def bound(pairs: slice) -> None:
            least_P = products.least_squares(queries_QE, rows_R[pairs], items_R[pairs])
            may_R[pairs] = ~(least_P > distances_R[pairs].square())

        self.each(bound, slices(len(rows_R), 4 * self.pairs))
        return may_R

    def block_distances(self, points_BE: Tensor, points_ME: Tensor) -> Tensor:
        """Distances [B, M] float64 between points; the same as :meth:`distances`."""
        return torch.stack([_lengths(points_ME - point_E) for point_E in points_BE])

    def each(self, function: Callable[[slice], None], parts: Iterable[slice]) -> None:
        """Call ``function`` with every part; on CPU in a thread per core, of which each computes by itself.

        The tensors at work are small, so that cores sharing them would wait for each other most of the time.
        """
        threads = torch.get_num_threads()
        if threads == 1 or self._device.type != "cpu":
            for part in parts:
                function(part)
            return
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for _ in pool.map(function, parts):
                    pass
        finally:
            torch.set_num_threads(threads)

    def _empty(self, rows: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.empty(rows, self._width, dtype=dtype, device=self._device)

    def _as_points(self, embeddings_RE: Tensor, out_RE: Tensor) -> Tensor:
        out_RE.copy_(embeddings_RE)
        return out_RE.div_(_lengths(out_RE).clamp_min(1e-12)[:, None]) if self._kind == "cosine" else out_RE

    def _gathered(self, items_R: Tensor) -> Tensor:
        """Points of at most ``pairs`` items, valid until the next call of the same thread."""
        if not hasattr(self._local, "points"):
            self._local.points = self._empty(self.pairs)
        points_RE = self._local.points[: len(items_R)]
        if not isinstance(self._items_NE, Tensor):
            return self._as_points(self._items_NE[items_R], points_RE)
        if not hasattr(self._local, "raw"):
            self._local.raw = self._items_NE.new_empty(self.pairs, self._width)
        raw_RE = self._local.raw[: len(items_R)]
        torch.index_select(self._items_NE, 0, items_R.to(raw_RE.device), out=raw_RE)
        return self._as_points(raw_RE, points_RE)


def slices(count: int, size: int) -> Sequence[slice]:
    """``count`` rows in parts of at most ``size``, of at least one."""
    size = max(1, size)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class _Products:
    """Inner products of single pairs: a fraction of the cost of their exact distances, since no row is copied."""

    def __init__(self, items_NE: Tensor) -> None:
        self._items_NE = items_NE
        self._squares_N = torch.linalg.vecdot(items_NE, items_NE)
        # Any order of summing E products in float32 is off by less: half of it for products, half for squares.
        width, numbers = items_NE.shape[1], torch.finfo(torch.float32)
        self._error, self._underflow = 1.01 * (width + 8) * numbers.eps, 4 * width * numbers.tiny
        with warnings.catch_warnings():  # torch says, once, that its sparse matrices may change
            warnings.simplefilter("ignore")
            self.least_squares(items_NE[:1], torch.tensor([0]), torch.tensor([0]))

    def least_squares(self, queries_QE: Tensor, rows_P: Tensor, items_P: Tensor) -> Tensor:
        """What the squared distances [P] float64 are at least."""
        rows_B, place_P, count_B = rows_P.unique_consecutive(return_inverse=True, return_counts=True)
        queries_BE = queries_QE[rows_B]
        starts = torch.cat([count_B.new_zeros(1), count_B.cumsum(0)])
        size = len(queries_BE), len(self._items_NE)
        pairs = torch.sparse_csr_tensor(starts, items_P, torch.zeros(len(items_P)), size, check_invariants=False)
        products_P = torch.sparse.sampled_addmm(pairs, queries_BE, self._items_NE.T, beta=0).values()
        squares_P = torch.linalg.vecdot(queries_BE, queries_BE).double()[place_P] + self._squares_N[items_P].double()
        return squares_P * (1 - self._error) - 2 * products_P.double() - self._underflow


def _has_products(items_NE: ItemRows, kind: ScoreKind, device: torch.device) -> TypeGuard[Tensor]:
    if not isinstance(items_NE, Tensor) or kind != "distance":
        return False
    return items_NE.dtype == torch.float32 and items_NE.device.type == device.type == "cpu"


def _lengths(vectors_RE: Tensor) -> Tensor:
    """Lengths [R] of float64 vectors, each the same whatever vectors are beside it."""
    if vectors_RE.is_cuda:  # where a norm's order of summation depends on the number of rows
        origin_1E = torch.zeros_like(vectors_RE[:1])
        return torch.cdist(vectors_RE, origin_1E, compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
    return torch.linalg.vector_norm(vectors_RE, dim=1)
