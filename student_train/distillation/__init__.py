"""What a student takes from a teacher. A file per strategy.

A ranking strategy is a function of a :class:`Lesson` to a scalar. A matching strategy is a module that is trained with
the student and compares item embeddings with the teacher's.
"""

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Protocol

from torch import Tensor, nn

from student_train.distillation.base import Lesson
from student_train.registry import MATCHINGS, RANKINGS

RankingStrategy = Callable[[Lesson], Tensor]


class Matching(Protocol):
    """Builds a module ``forward(items_U, embedded_UD) -> scalar``."""

    def __call__(self, teacher_NE: Tensor, width: int) -> nn.Module:
        """For teacher embeddings [N, E] and students of width D."""
        ...


def ranking(strategy: str) -> RankingStrategy | None:
    """The loss of a strategy that compares rankings; none for the others."""
    return resolve_name(RANKINGS[strategy]) if strategy in RANKINGS else None


def matching(strategy: str) -> Matching | None:
    """The module of a strategy that compares item embeddings; none for the others."""
    return resolve_name(MATCHINGS[strategy]) if strategy in MATCHINGS else None


__all__ = ["Lesson", "Matching", "RankingStrategy", "matching", "ranking"]
