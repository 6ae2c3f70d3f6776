"""What cannot be batched over students that train together: done member by member, below ``torch.func.vmap``.

Most of a training step can: one call of ``vmap`` serves all members. Random draws cannot, for each member must draw
what it would draw alone, nor can what ``vmap`` has no rule for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass
class Members:
    """The random streams of students that train together, in the order of the batch."""

    samples: list[torch.Generator]
    """Of negatives and of whatever else is sampled; on the CPU."""
    masks: list[torch.Generator]
    """Of dropout; on the device."""
    dropout: list[float]
    """Rates."""
    rows: list[int]
    """Own rows of the present batch; those that follow are there because another member has more."""


_present: Members | None = None


@contextmanager
def training_together(members: Members) -> Iterator[None]:
    """Draw from the streams of ``members`` instead of torch's own and the one that the caller names."""
    global _present  # as torch's own generator is
    _present = members
    try:
        yield
    finally:
        _present = None


def present() -> Members | None:
    """The members of the batch in progress; none while a student trains alone."""
    return _present


def each(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function(member, *tensors)`` for every member of the enclosing ``vmap``; differentiable in ``tensors``."""
    stacked: Tensor = _Each.apply(function, *tensors)
    return stacked


def drawn(draw: Callable[..., Tensor], generator: torch.Generator, *tensors: Tensor) -> Tensor:
    """``draw(generator, *tensors)``, each member with its own generator and its own rows.

    Args:
        draw: makes a row of its result from a row of each tensor.
        generator: for a student that trains alone.
        tensors: [B, …].
    """
    members = present()
    if members is None:
        return draw(generator, *tensors)
    generators = members.samples
    return each(of_own_rows(lambda member, *own: draw(generators[member], *own), members), *tensors)


def of_own_rows(draw: Callable[..., Tensor], members: Members) -> Callable[..., Tensor]:
    """``draw`` on a member's own rows, padded with zeros where others have more."""

    def padded(member: int, *tensors: Tensor) -> Tensor:
        rows = members.rows[member]
        own = draw(member, *(values[:rows] for values in tensors))
        return functional.pad(own, (0, 0) * (own.dim() - 1) + (0, len(tensors[0]) - len(own)))

    return padded


class _Each(torch.autograd.Function):
    """Exists for its rule for ``vmap``."""

    @staticmethod
    def forward(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        raise NotImplementedError("outside of vmap there are no members")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ANN401  # torch's own signature
        """Nothing to keep: the rule below is differentiated itself."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Callable[..., Tensor], *tensors: Tensor) -> tuple[Tensor, int]:  # noqa: ANN401
        def own(member: int) -> list[Tensor]:
            dims = in_dims[1:]
            return [t if dim is None else t.select(dim, member) for t, dim in zip(tensors, dims, strict=True)]

        return torch.stack([function(member, *own(member)) for member in range(info.batch_size)]), 0
