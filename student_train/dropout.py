"""Dropout that does not spend most of a small student's CPU time on random numbers."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from student_train.memberwise import Streams, batched, present

LEVELS = 256


class Dropout(nn.Module):
    """Dropout whose mask takes one random byte per element on a CPU.

    The rate is rounded to 1/256 there, and the kept elements are scaled by the rounded rate, so means are preserved.
    torch draws a number per element there, which took about three times as long on 256 x 10 x 64 values.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: Tensor) -> Tensor:
        """``values`` with elements dropped while training, as they are otherwise."""
        if not self.training:
            return values
        if streams := present():
            return values * batched(partial(masks, streams), values.detach()) if any(streams.dropout) else values
        if not self.rate:
            return values
        if values.is_cuda:
            return functional.dropout(values, self.rate)
        bits = _bytes([len(values)], [None], values[None])[0]
        return values * (bits >= _cut(self.rate)).to(values.dtype).mul_(_scale(self.rate))


def masks(streams: Streams, values_MB: Tensor) -> Tensor:
    """What dropout multiplies the values [M, B, …] of members with: 0, or the inverse of the share that is kept."""
    if values_MB.is_cuda:
        mask = torch.ones_like(values_MB)
        for own, rows, rate, stream in zip(mask, streams.rows, streams.dropout, streams.masks, strict=True):
            own[:rows].bernoulli_(1 - rate, generator=stream).div_(1 - rate)
        return mask
    bits = _bytes(streams.rows, streams.masks, values_MB)
    cuts, scales = (
        torch.tensor([of(rate) for rate in streams.dropout]).view(-1, *[1] * (bits.dim() - 1)) for of in (_cut, _scale)
    )
    return (bits >= cuts).to(values_MB.dtype).mul_(scales)


def _bytes(rows: Sequence[int], streams: Sequence[torch.Generator | None], like_MB: Tensor) -> Tensor:
    """A random byte per element of the first ``rows`` rows of each member, from its stream."""
    size = like_MB[0].numel()
    words = torch.empty(len(like_MB), -(-size // 8), dtype=torch.int64)
    for own, count, stream in zip(words, rows, streams, strict=True):
        drawn = size // like_MB.shape[1] * count
        own[: -(-drawn // 8)].random_(-(2**63), 2**63 - 1, generator=stream)
    return words.view(torch.uint8)[:, :size].view(like_MB.shape)


def _cut(rate: float) -> int:
    return min(round(rate * LEVELS), LEVELS - 1)


def _scale(rate: float) -> float:
    return LEVELS / (LEVELS - _cut(rate))
