"""Importance of each teacher candidate (paper, section 3.1): position, confidence, consistency."""

import torch
from torch import Tensor

from data_prep.schema import ScoreKind
from data_prep.score_kind import ScoreScale
from student_train.config import DistillationConfig


def confidence(target_score_B: Tensor, kind: ScoreKind, scale: ScoreScale) -> Tensor:
    """How far the teacher can be trusted on each row, from its score of the true next item.

    The paper takes a value that falls with the distance between the teacher's answer and the true item. Distances of
    different teachers differ in scale, so they are measured in standard deviations over the train rows, and the
    confidences exp(−distance) are scaled to a mean of 1: a row's own level is kept.

    Args:
        target_score_B: the teacher's score of the true item in some train rows.
        kind: meaning of the scores.
        scale: of the scores over all train rows, where the confidences have mean 1.

    Returns:
        Confidences [B].
    """
    return scale.confidence(target_score_B, kind).to(target_score_B.dtype)


def position_weights(top_k: int, beta: float, device: torch.device | None = None) -> Tensor:
    """Weights [K] ∝ exp(−r / β) of the ranks r = 1 … K, normalised to sum 1."""
    return torch.softmax(-torch.arange(1, top_k + 1, device=device) / beta, dim=0)


def importance(scores_BN: Tensor, teacher_items_BK: Tensor, confidence_B: Tensor, config: DistillationConfig) -> Tensor:
    """Weights w = γ_p w_p + γ_c w_c + γ_o w_o of the teacher's candidates.

    w_p sums to 1 over a list; w_c is the row's confidence (1 on average) for each of its candidates; w_o is 1 where the
    candidate is in the student's own top K, else 0. The sum is not normalised over the list, so that rows on which the
    teacher is unsure weigh less.

    Args:
        scores_BN: the student's logits, taken as constants.
        teacher_items_BK: the teacher's candidates, best first.
        confidence_B: see :func:`confidence`.
        config: γ, β and K.

    Returns:
        Weights [B, K].
    """
    position_K = position_weights(teacher_items_BK.shape[1], config.beta, scores_BN.device).to(scores_BN)
    weights_BK = config.gamma_position * position_K + config.gamma_confidence * confidence_B[:, None]
    if config.gamma_consistency:
        weights_BK = weights_BK + config.gamma_consistency * consistency(scores_BN, teacher_items_BK)
    return weights_BK


def consistency(scores_BN: Tensor, teacher_items_BK: Tensor) -> Tensor:
    """1 where a candidate is in the student's own top K, else 0: [B, K]."""
    scores_BN = scores_BN.detach()
    kth_B1 = scores_BN.topk(teacher_items_BK.shape[1], dim=1, sorted=True).values[:, -1:]
    return (scores_BN.gather(1, teacher_items_BK) >= kth_B1).to(scores_BN)
