"""Generalised binary cross-entropy (gSASRec; Petrov and Macdonald, RecSys 2023)."""

import torch
from torch import Tensor
from torch.nn import functional

from student_train.losses.base import Items, StudentLoss


class GBCE(StudentLoss):
    """BCE whose target probability is raised to β, which undoes the overconfidence that sampling M of N − 1 gives.

    β = α (t (1 − 1/α) + 1/α) with sampling rate α = M / (N − 1) and calibration t: BCE at t = 0, calibrated at t = 1.
    """

    distillation_scale = 1 / 24

    def loss(self, target_B: Tensor, negative_BM: Tensor, items: Items) -> Tensor:
        """Mean of −β log σ(ŷ_target) and −log(1 − σ(ŷ_negative)) over target and negatives alike."""
        rate = negative_BM.shape[1] / (len(items.popularity_N) - 1)
        calibration = self.config.gbce_calibration
        beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
        positive = -beta * functional.logsigmoid(target_B)
        negative = -functional.logsigmoid(-negative_BM)
        return torch.cat([positive[:, None], negative], dim=1).mean(1)
