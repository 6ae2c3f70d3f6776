"""What cannot be batched over students that train together: done member by member, below ``torch.func.vmap``.

Most of a training step can: one call of ``vmap`` serves all members. Random draws cannot, for each member must draw
what it would draw alone, nor can what ``vmap`` has no rule for.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class Streams:
    """The random streams of students that train together, in the order of the batch."""

    samples: list[torch.Generator]
    """Of negatives and of whatever else is sampled; on the CPU."""
    masks: list[torch.Generator]
    """Of dropout; on the device."""
    dropout: list[float]
    """Rates."""
    rows: list[int]
    """Own rows of the present batch; those that follow are there because another member has more."""


_present: Streams | None = None


@contextmanager
def training_together(streams: Streams) -> Iterator[None]:
    """Draw from ``streams`` instead of torch's own and the one that the caller names."""
    global _present  # as torch's own generator is
    _present = streams
    try:
        yield
    finally:
        _present = None


def present() -> Streams | None:
    """The streams of the members in training; none while a student trains alone."""
    return _present


def batched(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function(*tensors)`` with the members of the enclosing ``vmap`` as first dimension of tensors and result.

    It is differentiated as it stands.
    """
    result: Tensor = _Batched.apply(function, *tensors)
    return result


def each(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function(member, *tensors)`` for every member of the enclosing ``vmap``."""

    def one_by_one(*stacked: Tensor) -> Tensor:
        return torch.stack([function(member, *own) for member, own in enumerate(zip(*stacked, strict=True))])

    return batched(one_by_one, *tensors)


def drawn(draw: Callable[..., Tensor], generator: torch.Generator, *tensors: Tensor) -> Tensor:
    """``draw(generator, *tensors)``, each member with its own generator and its own rows.

    Args:
        draw: makes a row of its result from a row of each tensor.
        generator: for a student that trains alone.
        tensors: [B, …].
    """
    streams = present()
    if streams is None:
        return draw(generator, *tensors)
    generators, rows = streams.samples, streams.rows

    def own(member: int, *values: Tensor) -> Tensor:
        made = draw(generators[member], *(value[: rows[member]] for value in values))
        return functional.pad(made, (0, 0) * (made.dim() - 1) + (0, len(values[0]) - len(made)))

    return each(own, *tensors)


class _Batched(torch.autograd.Function):
    """Exists for its rule for ``vmap``."""

    @staticmethod
    def forward(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        raise NotImplementedError("outside of vmap there are no members")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ANN401  # torch's own signature
        """Nothing to keep: the rule below is differentiated itself."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Callable[..., Tensor], *tensors: Tensor) -> tuple[Tensor, int]:  # noqa: ANN401
        return function(*stacked(info.batch_size, in_dims[1:], tensors)), 0


def stacked(size: int, dims: Iterable[int | None], tensors: Iterable[Tensor]) -> list[Tensor]:
    """Tensors that a rule for ``vmap`` is given, with the members first; what they share is repeated without a copy."""
    return [
        values.expand(size, *values.shape) if dim is None else values.movedim(dim, 0)
        for values, dim in zip(tensors, dims, strict=True)
    ]
