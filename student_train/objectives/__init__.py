"""The student's own losses on scores [B, N]. A file each; register it here.

An objective also says how it reads a score as a log-likelihood, so that ranking distillation speaks its language.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor
from torch.nn import functional

from student_train.objectives.bce import bce
from student_train.objectives.dro import dro
from student_train.objectives.softmax import softmax


class Loss(Protocol):
    """Mean loss over the rows of a batch."""

    def __call__(self, scores_BN: Tensor, target_B: Tensor, negatives_BM: Tensor) -> Tensor:
        """Scalar."""
        ...


LogLikelihood = Callable[[Tensor], Tensor]
"""Log-likelihood [B, N] of each item, from scores [B, N]."""


class Objective(NamedTuple):
    """A loss and the log-likelihood that it fits."""

    loss: Loss
    log_likelihood: LogLikelihood


OBJECTIVES: dict[str, Objective] = {
    "bce": Objective(bce, functional.logsigmoid),
    "softmax": Objective(softmax, lambda scores_BN: functional.log_softmax(scores_BN, dim=1)),
}

__all__ = ["OBJECTIVES", "Objective", "dro"]
