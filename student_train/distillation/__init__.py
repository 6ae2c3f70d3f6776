"""What a student takes from a teacher. A file per strategy.

A response-based strategy is a function of a :class:`DistillationBatch` to a scalar: it compares rankings. A
feature-based one is a module that is trained with the student and compares item embeddings with the teacher's.
"""

from collections.abc import Callable
from typing import Protocol, cast

from torch import Tensor, nn

from cluster.dotted_path import find
from student_train.components import STRATEGIES
from student_train.distillation.base import DistillationBatch

ResponseStrategy = Callable[[DistillationBatch], Tensor]


class FeatureStrategy(Protocol):
    """Builds a module ``forward(items_U, embedded_UD) -> scalar``."""

    def __call__(self, teacher_NE: Tensor, width: int) -> nn.Module:
        """For teacher embeddings [N, E] and students of width D."""
        ...


def response_based(strategy: str) -> ResponseStrategy | None:
    """The loss of a strategy that compares rankings; none for the others."""
    found = find(STRATEGIES, strategy)
    return None if isinstance(found, type) else found


def feature_based(strategy: str) -> FeatureStrategy | None:
    """The module of a strategy that compares item embeddings; none for the others."""
    found = find(STRATEGIES, strategy)
    return cast(FeatureStrategy, found) if isinstance(found, type) else None


__all__ = ["DistillationBatch", "FeatureStrategy", "ResponseStrategy", "feature_based", "response_based"]
