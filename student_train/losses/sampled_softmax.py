"""Softmax over the target and sampled items, corrected for how they are sampled (Bengio and Senécal, 2008)."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from student_train.losses.base import Items, StudentLoss


class SampledSoftmax(StudentLoss):
    """Cross-entropy of the target among M items drawn by popularity; log Q, the chance to be drawn, is taken off.

    The correction makes the gradient an estimate of the full softmax's; a negative that is the target does not count.
    """

    def draw(self, target_B: Tensor, history_BL: Tensor, popularity_N: Tensor, generator: torch.Generator) -> Tensor:
        """Negatives [B, M] drawn with replacement in proportion to popularity."""
        count = len(target_B) * self.config.negatives
        drawn = torch.multinomial(popularity_N.to(generator.device), count, replacement=True, generator=generator)
        return drawn.view(len(target_B), -1).to(target_B)

    def loss(self, target_B: Tensor, negative_BM: Tensor, items: Items) -> Tensor:
        """See the class."""
        # M draws stand for the whole catalogue: each item is expected M q times. The target is there once, always.
        expected_BM = items.popularity_N.log()[items.negative_BM] + math.log(negative_BM.shape[1])
        negative_BM = negative_BM - expected_BM
        negative_BM = negative_BM.masked_fill(items.negative_BM == items.target_B[:, None], -torch.inf)
        logits = torch.cat([target_B[:, None], negative_BM], dim=1)
        return functional.cross_entropy(logits, torch.zeros_like(items.target_B), reduction="none")

    def log_likelihood(self, scores_BN: Tensor, items_BK: Tensor) -> Tensor:
        """Log softmax over the catalogue."""
        return functional.log_softmax(scores_BN, dim=1).gather(1, items_BK)
