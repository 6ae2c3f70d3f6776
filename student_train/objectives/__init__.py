"""The student's own losses on scores [B, N]. A file each; register it here.

An objective also says how it reads a score as a log-likelihood, so that ranking distillation speaks its language.
"""

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


class LogLikelihood(Protocol):
    """Log-likelihood [B, N] of each item under the objective."""

    def __call__(self, scores_BN: Tensor) -> Tensor:
        """Log-likelihoods [B, N]."""
        ...


class Objective(NamedTuple):
    """A loss and the log-likelihood that it fits."""

    loss: Loss
    log_likelihood: LogLikelihood


OBJECTIVES = {
    "bce": Objective(bce, functional.logsigmoid),
    "softmax": Objective(softmax, lambda scores_BN: functional.log_softmax(scores_BN, dim=1)),
}

__all__ = ["OBJECTIVES", "Objective", "dro"]
