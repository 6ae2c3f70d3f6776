"""Binary cross-entropy of the target and sampled negatives (paper, section 2.2)."""

import torch
from torch import Tensor
from torch.nn import functional

from student_train.losses.base import Items, StudentLoss


class BCE(StudentLoss):
    """Mean of −log σ(ŷ_target) and −log(1 − σ(ŷ_negative)) over target and negatives alike."""

    distillation_scale = 1 / 24

    def loss(self, target_B: Tensor, negative_BM: Tensor, items: Items) -> Tensor:
        """See the class."""
        positive = -functional.logsigmoid(target_B)
        negative = -functional.logsigmoid(-negative_BM)
        return torch.cat([positive[:, None], negative], dim=1).mean(1)
