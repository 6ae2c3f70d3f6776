"""Collaborative Distillation (Lee et al., ICDM 2019)."""

import torch
from torch import Tensor
from torch.nn import functional

from student_train.distillation.base import DistillationBatch

TEMPERATURE = 2.0
"""At lower ones the targets of a list's end fall below those of items off the list."""


def cd(batch: DistillationBatch) -> Tensor:
    """Binary cross-entropy of listed and sampled items against soft targets that fall with the teacher's rank.

    The target of rank k is σ((K / 2 − k) / T · 4 / K) and zero for items off the list: a pseudo-probability from ranks
    alone. As many items off the list are drawn as on it.
    """
    top_k = batch.teacher.items.shape[1]
    rank_K = torch.arange(1, top_k + 1, device=batch.scores_BN.device)
    target_K = torch.sigmoid((top_k / 2 - rank_K) * 4 / top_k / TEMPERATURE)
    listed_BK = functional.binary_cross_entropy_with_logits(
        batch.candidates_BK, target_K.to(batch.scores_BN).expand_as(batch.candidates_BK), reduction="none"
    )
    unlisted_BK = functional.softplus(batch.scores_BN.gather(1, batch.unlisted(top_k)))
    return torch.cat([listed_BK, unlisted_BK], dim=1).mean()
