"""Importance-aware ranking distillation (paper, section 3.1)."""

from torch import Tensor

from student_train.distillation.base import DistillationBatch
from student_train.distillation.importance import importance


def dllm2rec(lesson: DistillationBatch) -> Tensor:
    """L_d = −mean over rows of Σ_k w_k log p(candidate k); p is σ(ŷ) under BCE, as in the paper, or the softmax."""
    weights_BK = importance(lesson.scores_BN, lesson.teacher.items, lesson.teacher.confidence, lesson.config)
    return -(weights_BK * lesson.log_likelihood_BK).sum(1).mean()
