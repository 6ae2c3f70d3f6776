"""Relaxed ranking distillation of DE-RRD (Kang et al., CIKM 2020)."""

import torch
from torch import Tensor

from student_train.distillation.base import DistillationBatch


def rrd(batch: DistillationBatch) -> Tensor:
    """−mean log-likelihood of the teacher's order of its list above as many items drawn from the rest."""
    rest_BL = batch.scores_BN.gather(1, batch.unlisted(batch.teacher.items.shape[1]))
    return -relaxed_ranking(batch.candidates_BK, rest_BL).mean()


def relaxed_ranking(listed_BK: Tensor, rest_BL: Tensor) -> Tensor:
    """Mean over k of log [e^s_k / (Σ_{j ≥ k} e^s_j + Σ e^rest)] per row [B]: the order inside the rest is free."""
    rest_B1 = rest_BL.logsumexp(1, keepdim=True)
    below_BK = listed_BK.flip(1).logcumsumexp(1).flip(1)
    return (listed_BK - torch.logaddexp(below_BK, rest_B1)).mean(1)
