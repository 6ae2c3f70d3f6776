"""Importance-aware ranking distillation (paper, section 3.1)."""

from torch import Tensor

from student_train.distillation.base import DistillationBatch
from student_train.distillation.importance import importance


def dllm2rec(batch: DistillationBatch) -> Tensor:
    """L_d = −mean over rows of Σ_k w_k log p(candidate k); p is σ(ŷ) under BCE, as in the paper, or the softmax."""
    weights_BK = importance(batch.scores_BN, batch.teacher.items, batch.teacher.confidence, batch.config)
    return -(weights_BK * batch.log_likelihood_BK).sum(1).mean()
