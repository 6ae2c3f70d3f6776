"""Dual Correction strategy for ranking Distillation (Lee and Kim, CIKM 2021)."""

import torch
from torch import Tensor

from student_train.distillation.base import DistillationBatch

SHARPNESS = 0.1


def dcd(batch: DistillationBatch) -> Tensor:
    """Correct where student and teacher disagree: lift what the student ranks too low, lower what it ranks too high.

    Underestimated are items of the teacher's list by tanh(ε · ranks behind); overestimated is the student's own top K
    off the list. A listwise likelihood of the former above the latter is raised, each item weighted by its
    discrepancy, as the paper samples in proportion to it.
    """
    top_k = batch.teacher.items.shape[1]
    rank_K = torch.arange(1, top_k + 1, device=batch.scores_BN.device)
    behind_BK = batch.student_ranks(batch.teacher.items) - rank_K
    under_BK = torch.tanh(SHARPNESS * behind_BK).clamp(min=0)
    agreed_BK = (batch.student_top_BK[:, :, None] == batch.teacher.items[:, None, :]).any(2)
    over_BK = batch.scores_BN.gather(1, batch.student_top_BK).masked_fill(agreed_BK, -torch.inf)
    rivals_BK = torch.cat([over_BK, batch.scores_BN.gather(1, batch.unlisted(1))], dim=1)
    rivals_B1 = rivals_BK.logsumexp(1, keepdim=True)
    likelihood_BK = batch.candidates_BK - torch.logaddexp(batch.candidates_BK, rivals_B1)
    return -(under_BK * likelihood_BK).sum(1).mean() / top_k
