"""What a student takes from a teacher. A file per strategy.

A ranking strategy is a function of a :class:`DistillationBatch` to a scalar. A feature_loss strategy is a module that is trained with
the student and compares item embeddings with the teacher's.
"""

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Protocol

from torch import Tensor, nn

from student_train.distillation.base import DistillationBatch
from student_train.components import FEATURE_BASED, RESPONSE_BASED

RankingStrategy = Callable[[DistillationBatch], Tensor]


class Matching(Protocol):
    """Builds a module ``forward(items_U, embedded_UD) -> scalar``."""

    def __call__(self, teacher_NE: Tensor, width: int) -> nn.Module:
        """For teacher embeddings [N, E] and students of width D."""
        ...


def ranking(strategy: str) -> RankingStrategy | None:
    """The loss of a strategy that compares rankings; none for the others."""
    return resolve_name(RESPONSE_BASED[strategy]) if strategy in RESPONSE_BASED else None


def feature_loss(strategy: str) -> Matching | None:
    """The module of a strategy that compares item embeddings; none for the others."""
    return resolve_name(FEATURE_BASED[strategy]) if strategy in FEATURE_BASED else None


__all__ = ["DistillationBatch", "Matching", "RankingStrategy", "feature_loss", "ranking"]
