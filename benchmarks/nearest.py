"""Nearest items against BIGRec's evaluation: ``torch.cdist`` and a double argsort, on the same random float32 data.

Run: ``python -m benchmarks.nearest [--quick] [--rows 15000] [--items 17408] [--width 4096] [--device cpu]``. Each side
runs in a process of its own, one after the other. A run on a hundredth of the data loads its code; then it is measured
from the data in memory to the 20 nearest items, their distances and the distance of the true item of every row. Its
memory is the peak beyond the data.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.options import parse, parser, report
from teacher_infer.nearest import MEMORY, Catalogue

K = 20
# Float32 distances by inner products are off by about 1e-6, which swaps neighbours that are as near each other.
TOLERANCE, SAME = 1e-5, 0.98


class Workload(NamedTuple):
    """Sizes of the random data, and what the sides compute on."""

    rows: int = 15_000
    items: int = 17_408
    width: int = 4096
    device: str = "cpu"
    memory: int = MEMORY
    threads: int = torch.get_num_threads()


class Measured(NamedTuple):
    """What one side found, items [Q, K] and distances [Q, K + 1] (the true item's last), and what it took."""

    items: np.ndarray
    distances: np.ndarray
    seconds: float
    cpu_seconds: float
    peak_bytes: int


Side = Callable[[Tensor, Tensor, Tensor, Workload], tuple[Tensor, Tensor]]


def main() -> None:
    """Measure both sides and print the figures."""
    options = parser(__doc__)
    for name, default in Workload()._asdict().items():
        options.add_argument(f"--{name}", type=type(default), default=default)
    asked = vars(parse(options, rows=1_500, items=1_741, width=410))
    report(figures(Workload(**{name: asked[name] for name in Workload._fields})))


def figures(workload: Workload) -> dict[str, float]:
    """Both sides and their ratios: ``ratio_grounding`` of the wall times, ``grounding_memory_ratio`` of the peaks.

    Raises:
        RuntimeError: the two sides do not find the same.
    """
    ours, theirs = _apart(by_catalogue, workload), _apart(by_double_argsort, workload)
    same = float((ours.items == theirs.items).mean())
    error = float((np.abs(ours.distances - theirs.distances) / theirs.distances).max())
    if same < SAME or error > TOLERANCE:
        raise RuntimeError(f"{same:.2%} of the items are the same, distances differ by up to {error:.1e}")
    return {
        "grounding_rows": workload.rows,
        "grounding_seconds": ours.seconds,
        "grounding_seconds_cdist": theirs.seconds,
        "ratio_grounding": theirs.seconds / ours.seconds,
        "ratio_grounding_cpu_time": theirs.cpu_seconds / ours.cpu_seconds,
        "grounding_bytes": ours.peak_bytes,
        "grounding_bytes_cdist": theirs.peak_bytes,
        "grounding_memory_ratio": ours.peak_bytes / theirs.peak_bytes,
        "grounding_same_items": same,
    }


def by_catalogue(queries_QE: Tensor, items_NE: Tensor, targets_Q: Tensor, workload: Workload) -> tuple[Tensor, Tensor]:
    """Items and distances by the product."""
    catalogue = Catalogue(items_NE, "distance", workload.memory, workload.device)
    ranking = catalogue.rank(queries_QE, K)
    return ranking.items, torch.cat([ranking.scores, catalogue.scores(queries_QE, targets_Q)[:, None]], 1)


def by_double_argsort(queries_QE: Tensor, items_NE: Tensor, targets_Q: Tensor, _: Workload) -> tuple[Tensor, Tensor]:
    """Items and distances as BIGRec's evaluation finds them, by way of every item's rank."""
    distances_QN = torch.cdist(queries_QE, items_NE, p=2)
    order_QN = distances_QN.argsort(dim=-1)
    ranks_QN = order_QN.argsort(dim=-1)
    items_QK = order_QN[:, :K]
    if not (ranks_QN.gather(1, items_QK) < K).all():
        raise RuntimeError("ranks do not invert the order")
    return items_QK, distances_QN.gather(1, torch.cat([items_QK, targets_Q[:, None]], 1))


def _apart(side: Side, workload: Workload) -> Measured:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_measured, side, workload).result()


def _measured(side: Side, workload: Workload) -> Measured:
    torch.set_num_threads(workload.threads)
    generator = torch.Generator().manual_seed(0)
    data = (
        torch.randn(workload.rows, workload.width, generator=generator).to(workload.device),
        torch.randn(workload.items, workload.width, generator=generator).to(workload.device),
        torch.randint(workload.items, (workload.rows,), generator=generator).to(workload.device),
    )
    queries, items, targets = data
    side(queries[: len(queries) // 100], items[: len(items) // 100], targets[: len(queries) // 100] % 100, workload)
    before = _peak_bytes(workload.device)
    start, cpu_start = time.perf_counter(), time.process_time()
    items, distances = (found.cpu() for found in side(*data, workload))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return Measured(items.numpy(), distances.numpy(), seconds, cpu_seconds, _peak_bytes(workload.device) - before)


def _peak_bytes(device: str) -> int:
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return torch.cuda.max_memory_allocated(device)


if __name__ == "__main__":
    main()
