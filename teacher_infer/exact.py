"""Distances between queries and items from their differences, in float32.

Every distance is computed by itself, and right to a few roundings however far the points are from the origin: equal
embeddings are at distance 0, items with equal embeddings at equal distances, and a pair's distance never depends on
the pairs beside it.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from data_prep.schema import ScoreKind
from teacher_infer.item_file import ItemRows

CACHE = 1 << 20  # bytes that one core works on

Part = TypeVar("Part")


class Exact:
    """Distances to items [N, E]; ``memory`` bounds what all threads together take, in bytes."""

    def __init__(self, items_NE: ItemRows, kind: ScoreKind, device: torch.device, memory: int) -> None:
        self._items_NE, self._kind, self._device = items_NE, kind, device
        room = min(CACHE, memory // torch.get_num_threads()) if device.type == "cpu" else memory
        self._width = items_NE.shape[1]
        self.pairs = max(1, room // (8 * self._width))
        self.rows = max(1, room // (16 * self._width))
        self._local = threading.local()

    def points(self, embeddings_RE: Tensor) -> Tensor:
        """Embeddings as float32 points on the device; unit vectors for cosine, which is ``1 - distance² / 2``."""
        points_RE = embeddings_RE.to(self._device, torch.float32)
        return points_RE / _lengths(points_RE).clamp_min(1e-12)[:, None] if self._kind == "cosine" else points_RE

    def distances(self, points_BE: Tensor, items_BC: Tensor) -> Tensor:
        """Distances [B, C] float32 of points to some items each."""
        distances_BC = points_BE.new_empty(items_BC.shape)
        columns = max(1, self.pairs // len(points_BE))
        for items_BM, out_BM in zip(items_BC.split(columns, 1), distances_BC.split(columns, 1), strict=True):
            differences_RE = self._gathered(items_BM.flatten())
            differences_RE.view(*items_BM.shape, self._width).sub_(points_BE[:, None])
            out_BM.copy_(_lengths(differences_RE).view(items_BM.shape))
        return distances_BC

    def block_distances(self, points_BE: Tensor, points_ME: Tensor) -> Tensor:
        """Distances [B, M] float32 between points; the same as :meth:`distances`."""
        return torch.stack([_lengths(points_ME - point_E) for point_E in points_BE])

    def each(self, function: Callable[[Part], None], parts: Iterable[Part]) -> None:
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

    def _gathered(self, items_R: Tensor) -> Tensor:
        """A copy of the points of at most ``pairs`` items, valid until the next call of the same thread."""
        if not isinstance(self._items_NE, Tensor) or self._items_NE.device != self._device:
            return self.points(self._items_NE[items_R.cpu()])
        if not hasattr(self._local, "raw"):
            self._local.raw = self._items_NE.new_empty(self.pairs, self._width)
        raw_RE = self._local.raw[: len(items_R)]
        torch.index_select(self._items_NE, 0, items_R, out=raw_RE)
        return self.points(raw_RE)


def slices(count: int, size: int) -> Sequence[slice]:
    """``count`` rows in parts of at most ``size``, of at least one."""
    size = max(1, size)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _lengths(vectors_RE: Tensor) -> Tensor:
    """Lengths [R] of vectors, each the same whatever vectors are beside it."""
    if vectors_RE.is_cuda:  # where a norm's order of summation depends on the number of rows
        origin_1E = torch.zeros_like(vectors_RE[:1])
        return torch.cdist(vectors_RE, origin_1E, compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
    return torch.linalg.vector_norm(vectors_RE, dim=1)
