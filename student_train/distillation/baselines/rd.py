"""Ranking Distillation (Tang and Wang, KDD 2018)."""

import torch
from torch import Tensor
from torch.nn import functional

from student_train.distillation.base import DistillationBatch
from student_train.distillation.importance import position_weights

SHARPNESS = 0.1
"""μ of the paper: how fast the weight grows with the ranks that the student is behind."""


def rd(batch: DistillationBatch) -> Tensor:
    """−mean over rows of Σ_k w_k log σ(ŷ_k), w ∝ (position weight) · max(tanh(μ (student rank − k)), 0).

    The paper estimates the student's rank by sampling; here it is counted over the catalogue.
    """
    top_k = batch.teacher.items.shape[1]
    position_K = position_weights(top_k, batch.config.beta, batch.scores_BN.device).to(batch.scores_BN)
    rank_K = torch.arange(1, top_k + 1, device=position_K.device)
    behind_BK = batch.student_ranks(batch.teacher.items) - rank_K
    weights_BK = position_K * torch.tanh(SHARPNESS * behind_BK).clamp(min=0)
    weights_BK = weights_BK / weights_BK.sum(1, keepdim=True).clamp(min=1e-12)
    return -(weights_BK * functional.logsigmoid(batch.candidates_BK)).sum(1).mean()
