"""Items with equal embeddings, such as those of one title."""

from hashlib import blake2b

import torch
from torch import Tensor

from teacher_infer.blocks import each_core, slices
from teacher_infer.item_file import ItemRows


def copy_numbers(items_NE: ItemRows, memory: int) -> Tensor:
    """How many items before each [N] int32 have the same embedding; reads at most ``memory`` bytes at a time."""
    count, width = items_NE.shape
    keys_N = torch.empty(count, dtype=torch.int64)

    def number(block: slice) -> None:
        rows = items_NE[block].cpu().contiguous().view(torch.uint8).numpy()
        keys_N[block] = torch.tensor([_key(row.data) for row in rows])

    each_core(number, slices(count, memory // (8 * width * torch.get_num_threads())))
    # Equal keys stand together, in order of the items; a copy's number is its distance from the first of them.
    ordered_N, order_N = keys_N.sort(stable=True)
    place_N = torch.arange(count)
    first_N = torch.ones(count, dtype=torch.bool)
    first_N[1:] = ordered_N[1:] != ordered_N[:-1]
    number_N = place_N - torch.where(first_N, place_N, 0).cummax(0).values
    return torch.empty(count, dtype=torch.int32).scatter_(0, order_N, number_N.int())


def _key(row: memoryview) -> int:
    return int.from_bytes(blake2b(row, digest_size=8).digest(), "little", signed=True)
