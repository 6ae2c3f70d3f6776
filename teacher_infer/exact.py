"""Exact distances between queries and items, from differences in float64.

Every distance is computed by itself: equal embeddings are at distance 0, items with equal embeddings at equal
distances, and a pair's distance never depends on the pairs beside it.
"""

import math
from collections.abc import Callable
from typing import Any, TypeGuard

import numba
import torch
from llvmlite.binding import ffi
from torch import Tensor
from torch.nn import functional

from data_prep.schema import ScoreKind
from teacher_infer.blocks import each_core, slices
from teacher_infer.item_file import ItemRows

CACHE = 4 << 20  # bytes that one core works on
PAIRS = 4096  # distances that one core computes at a time, where nothing is copied
SHORTEST = 1e-12  # what a vector is divided by at least to become a unit vector

# On a CPU, vLLM looks into the `__dict__` of whatever any module holds. This one object takes that for the name of a C
# function, and no engine would start in a process that has imported numba.
ffi.lib._fntab["__dict__"] = {}


class Exact:
    """Distances to items [N, E]; ``memory`` bounds what all threads together take, in bytes."""

    def __init__(self, items_NE: ItemRows, kind: ScoreKind, device: torch.device, memory: int) -> None:
        self._items_NE, self._unit, self._device = items_NE, kind == "cosine", device
        on_cpu, width = device.type == "cpu", items_NE.shape[1]
        room = memory // torch.get_num_threads() if on_cpu else memory
        self.rows = max(1, min(room, CACHE if on_cpu else room) // (16 * width))
        self._pairs = max(1, room // (32 * width))

    def points(self, embeddings_RE: Tensor) -> Tensor:
        """Embeddings as float32 points on the device; unit vectors for cosine, which is ``1 - distance² / 2``."""
        points_RE = self._here(embeddings_RE)
        return functional.normalize(points_RE, dim=1, eps=SHORTEST) if self._unit else points_RE

    def distances(self, queries_QE: Tensor, rows_R: Tensor, items_RC: Tensor) -> Tensor:
        """Distances [R, C] float64 of the queries ``rows_R`` (on CPU) to some items each."""
        distances_RC = torch.empty(items_RC.shape, dtype=torch.float64, device=self._device)
        items_NE = self._items_NE if self._device.type == "cpu" and _is_plain(queries_QE) else None
        pairs = PAIRS if _is_plain(items_NE) else self._pairs

        def measure(part: tuple[slice, slice]) -> None:
            rows_B, items_BM = rows_R[part[0]], items_RC[part]
            if _is_plain(items_NE):
                distances_RC[part] = self._distances(queries_QE, rows_B, items_NE, items_BM)
            else:
                points_PE = self._here(self._items_NE[items_BM.flatten().cpu()])
                places_BM = torch.arange(len(points_PE)).view(items_BM.shape)
                points_BE = self._here(queries_QE[rows_B])
                distances_RC[part] = self._distances(points_BE, torch.arange(len(rows_B)), points_PE, places_BM)

        columns = slices(items_RC.shape[1], pairs)
        rows = slices(len(rows_R), pairs // max(1, items_RC.shape[1]))
        each_core(measure, [(some, part) for some in rows for part in columns], self._device)
        return distances_RC

    def block_distances(self, queries_BE: Tensor, block: slice) -> Tensor:
        """Distances [B, M] float64 to consecutive items; the same as :meth:`distances`."""
        points_ME = self._here(self._items_NE[block])
        points_BE, items_1M = self._here(queries_BE), torch.arange(len(points_ME))[None]
        distances_BM = torch.empty(len(points_BE), len(points_ME), dtype=torch.float64, device=self._device)

        def measure(row: slice) -> None:
            distances_BM[row] = self._distances(points_BE[row], torch.zeros(1, dtype=torch.int64), points_ME, items_1M)

        each_core(measure, slices(len(points_BE), 1), self._device)
        return distances_BM

    def _here(self, embeddings_RE: Tensor) -> Tensor:
        return embeddings_RE.to(self._device, torch.float32).contiguous()

    def _distances(self, queries_QE: Tensor, rows_B: Tensor, items_NE: Tensor, items_BM: Tensor) -> Tensor:
        """Distances [B, M] float64 between float32 points on the device."""
        if self._device.type == "cpu":
            distances_BM = torch.empty(items_BM.shape, dtype=torch.float64)
            arrays = (tensor.numpy() for tensor in (queries_QE, rows_B, items_NE, items_BM.contiguous(), distances_BM))
            _measure(*arrays, self._unit)
            return distances_BM
        queries_BE, points_BME = queries_QE[rows_B].double(), items_NE[items_BM].double()
        if self._unit:
            queries_BE, points_BME = (_units(points) for points in (queries_BE, points_BME))
        return _lengths(points_BME - queries_BE[:, None])


def _is_plain(rows: ItemRows | None) -> TypeGuard[Tensor]:
    """Whether embeddings lie in memory as the kernel reads them."""
    return (
        isinstance(rows, Tensor) and rows.dtype == torch.float32 and rows.device.type == "cpu" and rows.is_contiguous()
    )


def _units(points: Tensor) -> Tensor:
    return points / _lengths(points).clamp_min(SHORTEST)[..., None]


def _lengths(vectors: Tensor) -> Tensor:
    """Lengths of vectors on a GPU, where a norm's order of summation depends on the number of rows."""
    origin_1E = vectors.new_zeros(1, vectors.shape[-1])
    lengths_R1 = torch.cdist(vectors.flatten(0, -2), origin_1E, compute_mode="donot_use_mm_for_euclid_dist")
    return lengths_R1.view(vectors.shape[:-1])


# Sums may be taken in any order, always the same one: several at a time, as processors add fastest.
_compiled: Callable[[Any], Any] = numba.njit(nogil=True, fastmath={"reassoc", "nsz"})


@_compiled
def _measure(queries: Any, rows: Any, items: Any, columns: Any, distances: Any, unit: bool) -> None:  # noqa: ANN401
    """Write distances [B, M] of queries ``rows`` [B] to items ``columns`` [B, M], copying nothing."""
    for at in range(len(rows)):
        query = queries[rows[at]]
        query_scale = _scale(query) if unit else 1.0
        for column in range(columns.shape[1]):
            item = items[columns[at, column]]
            item_scale = _scale(item) if unit else 1.0
            total = 0.0
            for place in range(len(query)):
                difference = query_scale * query[place] - item_scale * item[place]
                total += difference * difference
            distances[at, column] = math.sqrt(total)


@_compiled
def _scale(vector: Any) -> float:  # noqa: ANN401
    total = 0.0
    for value in vector:
        total += float(value) * float(value)
    return 1 / max(math.sqrt(total), SHORTEST)
