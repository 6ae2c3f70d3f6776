"""Importance-aware ranking distillation (paper, section 3.1)."""

from torch import Tensor

from student_train.config import DistillationConfig
from student_train.distillation.importance import importance
from student_train.objectives import LogLikelihood


def ranking_distillation(
    scores_BN: Tensor,
    teacher_items_BK: Tensor,
    confidence_B: Tensor,
    config: DistillationConfig,
    log_likelihood: LogLikelihood,
) -> Tensor:
    """L_d = −mean over rows of Σ_k w_k log p(candidate k).

    Args:
        scores_BN: the student's logits.
        teacher_items_BK: the teacher's candidates, best first.
        confidence_B: the teacher's confidence in each row.
        config: γ, β and K.
        log_likelihood: of the student's objective; log σ for BCE as in the paper.
    """
    weights_BK = importance(scores_BN, teacher_items_BK, confidence_B, config)
    return -(weights_BK * log_likelihood(scores_BN).gather(1, teacher_items_BK)).sum(1).mean()
