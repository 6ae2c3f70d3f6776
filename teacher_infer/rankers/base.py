"""What every way to rank takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from data_prep.schema import ScoreKind
from teacher_infer.stats import Stats

if TYPE_CHECKING:
    from teacher_infer.rankers.teacher import Teacher


class Rows(NamedTuple):
    """B rows: their ids [B], histories, oldest first, and true items [B]."""

    row_id: Sequence[int]
    history: Sequence[Sequence[int]]
    target: Tensor

    def take(self, at: Sequence[int]) -> "Rows":
        """The rows at these places."""
        return Rows(
            [self.row_id[i] for i in at],
            [self.history[i] for i in at],
            self.target[torch.tensor(at, dtype=torch.int64)],
        )


@dataclass
class Ranked:
    """The teacher's lists of B rows: items [B, K] int64, best first, their scores [B, K] and the true items' [B]."""

    items: Tensor
    scores: Tensor
    target_scores: Tensor
    texts: Sequence[str | None]
    """Generated titles [B]."""
    stats: Stats


class RowsRefused(Exception):
    """Some rows cannot be ranked whatever the engine does; the others are asked for again without them."""

    def __init__(self, errors: dict[int, str]) -> None:
        """``errors`` says why, by row id."""
        super().__init__("; ".join(errors.values()))
        self.errors = errors


class Ranker(Protocol):
    """A teacher with its catalogue; holds its engines."""

    kind: ScoreKind
    engines: int
    """Engines that it may hold at a time; they share the actor's GPU."""

    @classmethod
    def open(cls, teacher: "Teacher") -> Self:
        """The ranker of an actor; ``teacher.engines("generate")`` and ``("embed")`` start engines when asked."""
        ...

    def rank(self, rows: Rows) -> Ranked:
        """Rank the catalogue for rows that belong to one shard.

        Raises:
            RowsRefused: some rows cannot be ranked.
            ValueError: the engine refuses a row.
            RuntimeError: the engine fails.
        """
        ...


def padded(histories: Sequence[Sequence[int]], padding: int) -> Tensor:
    """Histories as one matrix [B, longest] int64, padded at the end."""
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(history, dtype=torch.int64) for history in histories], batch_first=True, padding_value=padding
    )
