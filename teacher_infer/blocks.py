"""Work in blocks: rows in parts, and parts spread over the cores."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
CPU = torch.device("cpu")


def slices(count: int, size: int) -> Sequence[slice]:
    """``count`` rows in parts of at most ``size``, of at least one."""
    size = max(1, size)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def each_core(function: Callable[[Part], None], parts: Iterable[Part], device: torch.device = CPU) -> None:
    """Call ``function`` with every part; on CPU in a thread per core, of which each computes by itself.

    The tensors at work are small, so that cores sharing them would wait for each other most of the time.
    """
    threads = torch.get_num_threads()
    if threads == 1 or device.type != "cpu":
        for part in parts:
            function(part)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(function, parts):
                pass
    finally:
        torch.set_num_threads(threads)
