"""Importance-aware ranking distillation as the official code computes it, faults included."""

import torch
from torch import Tensor
from torch.nn import functional

from student_train.config import DistillationConfig
from student_train.distillation.base import DistillationBatch
from student_train.distillation.importance import consistency, position_weights
from student_train.losses.dro import dro_rows

EPSILON = 1e-8


def dllm2rec_official(batch: DistillationBatch) -> Tensor:
    """Σ_k mean_b w_bk (−log σ(ŷ_bk) − log σ(1 − ŷ_b,neg)) + α Σ_k mean_bc w_bk dro_ck.

    Faults kept: weights are normalised over the list, so that no row weighs less; log σ(1 − ŷ) stands where
    log(1 − σ(ŷ)) is meant; the DRO term pairs every row's weight with every row's loss.
    """
    weights_BK = official_weights(batch.scores_BN, batch.teacher.items, batch.teacher.distance, batch.config)
    negative_B = -functional.logsigmoid(1 - batch.negative_BM[:, 0])
    candidates_BK = -functional.logsigmoid(batch.candidates_BK)
    loss = (weights_BK * (candidates_BK + negative_B[:, None])).mean(0).sum()
    if batch.dro_weight:
        for weight_B, item_B in zip(weights_BK.unbind(1), batch.teacher.items.unbind(1), strict=True):
            # The mean over all pairs of a product is the product of the means.
            robust_B = dro_rows(batch.scores_BN, item_B, batch.propensity_N, batch.dro_beta)
            loss = loss + batch.dro_weight * weight_B.mean() * robust_B.mean()
    return loss


def official_weights(
    scores_BN: Tensor, teacher_items_BK: Tensor, distance_BK: Tensor, config: DistillationConfig
) -> Tensor:
    """Weights [B, K]: γ_p w_p + γ_c w_c + γ_o w_o, normalised over the list."""
    position_K = position_weights(teacher_items_BK.shape[1], config.beta, scores_BN.device).to(scores_BN)
    closeness_BK = torch.exp(-distance_BK) + EPSILON
    weights_BK = (
        config.gamma_position * position_K
        + config.gamma_confidence * closeness_BK / closeness_BK.sum(1, keepdim=True)
        + config.gamma_consistency * (consistency(scores_BN, teacher_items_BK) + EPSILON)
    )
    return weights_BK / weights_BK.sum(1, keepdim=True)
