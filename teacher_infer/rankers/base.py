"""What every way to rank takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from data_prep.schema import ScoreKind
from teacher_infer.stats import Stats

if TYPE_CHECKING:
    from teacher_infer.engine import Task
    from teacher_infer.rankers.teacher import Teacher


class Answer(NamedTuple):
    """What the teacher generated for a row, and how many of its oldest titles the prompt had no room for."""

    text: str
    dropped: int


class Rows(NamedTuple):
    """B rows: their ids [B], histories, oldest first, true items [B], and answers [B] for rankers that take them."""

    row_id: Sequence[int]
    history: Sequence[Sequence[int]]
    target: Tensor
    answers: Sequence[Answer] | None = None

    def take(self, at: Sequence[int]) -> "Rows":
        """The rows at these places."""
        return Rows(
            [self.row_id[i] for i in at],
            [self.history[i] for i in at],
            self.target[torch.tensor(at, dtype=torch.int64)],
            [self.answers[i] for i in at] if self.answers is not None else None,
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
    """A teacher with its catalogue.

    A class may say more, each with a default: ``asks``, the engines that it asks (``("generate", "embed")``, which then
    share a GPU), and ``takes_answers``, whether the teacher's answers are generated for all rows before any is ranked
    (False). A ranker that takes answers and asks for embeddings alone needs one copy of the weights at a time.
    """

    kind: ScoreKind

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


def asked_by(ranker: type) -> tuple["Task", ...]:
    """The engines that a ranker may ask."""
    return getattr(ranker, "asks", ("generate", "embed"))


def takes_answers(ranker: type) -> bool:
    """Whether a ranker works on answers that were generated before."""
    return getattr(ranker, "takes_answers", False)


def padded(histories: Sequence[Sequence[int]], padding: int) -> Tensor:
    """Histories as one matrix [B, longest] int64, padded at the end."""
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(history, dtype=torch.int64) for history in histories], batch_first=True, padding_value=padding
    )
