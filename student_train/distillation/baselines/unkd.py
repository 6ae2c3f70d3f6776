"""Unbiased Knowledge Distillation by popularity strata (Chen et al., WSDM 2023)."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from student_train.distillation.base import DistillationBatch

STRATA = 4


def unkd(batch: DistillationBatch) -> Tensor:
    """−mean log σ(ŷ_k − ŷ_j) over pairs of a listed item k and an item j of the same popularity stratum drawn below it.

    Inside a stratum popularity tells nothing, so that less of the teacher's popularity bias is handed on. Strata hold
    the same share of the train targets each.
    """
    stratum_N, members, first_S, size_S = _strata(batch.popularity_N)
    stratum_BK = stratum_N[batch.teacher.items]
    drawn_BK = torch.rand(stratum_BK.shape, generator=batch.generator, device=batch.generator.device)
    below_BK = members[first_S[stratum_BK] + (drawn_BK.to(stratum_BK.device) * size_S[stratum_BK]).long()]
    listed_BK = (below_BK[:, :, None] == batch.teacher.items[:, None, :]).any(2)
    gap_BK = batch.candidates_BK - batch.scores_BN.gather(1, below_BK)
    return -(functional.logsigmoid(gap_BK) * ~listed_BK).mean()


@lru_cache(maxsize=2)
def _strata(popularity_N: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Stratum of each item [N], items by stratum [N], first place and size of each stratum [S]."""
    members = popularity_N.argsort(descending=True)
    before = popularity_N[members].cumsum(0) - popularity_N[members]
    of_members = (before * STRATA).long().clamp(max=STRATA - 1)
    stratum_N = torch.empty_like(of_members)
    stratum_N[members] = of_members
    size_S = of_members.new_zeros(STRATA).scatter_add(0, of_members, torch.ones_like(of_members))
    return stratum_N, members, size_S.cumsum(0) - size_S, size_S
