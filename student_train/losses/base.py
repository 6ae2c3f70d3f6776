"""What every loss of the student is made of."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from student_train.config import LossConfig


@dataclass
class Items:
    """Which items the logits of a batch belong to."""

    target_B: Tensor
    negative_BM: Tensor
    popularity_N: Tensor
    """Share of each item among the train targets, smoothed by one."""


class StudentLoss(ABC):
    """A loss on the logits of the target and of negatives, and how it reads a logit as a log-likelihood."""

    full = False
    """Whether the negatives are the whole catalogue, so that every item must be scored."""
    distillation_scale = 1.0
    """How hard the loss pulls at scores, about, next to a softmax over the catalogue; listwise distillation, which is
    one, is weighed by it, or else it would outweigh a loss of few items."""

    def __init__(self, config: LossConfig) -> None:
        self.config = config

    def draw(self, target_B: Tensor, history_BL: Tensor, popularity_N: Tensor, generator: torch.Generator) -> Tensor:
        """Negatives [B, M], uniform over the catalogue without the row's target and history.

        Args:
            target_B: item indices.
            history_BL: item indices, padded with N.
            popularity_N: share of each item among the train targets.
            generator: source of randomness.
        """
        n_items, taken = len(popularity_N), torch.cat([history_BL, target_B[:, None]], dim=1)
        drawn_BM = torch.randint(n_items, (len(target_B), self.config.negatives), generator=generator).to(target_B)
        # A history may hold the whole of a tiny catalogue, so the rejection gives up after a while.
        for _ in range(20):
            rejected_BM = (drawn_BM[:, :, None] == taken[:, None, :]).any(2)
            if not rejected_BM.any():
                break
            again = torch.randint(n_items, (int(rejected_BM.sum()),), generator=generator).to(target_B)
            drawn_BM[rejected_BM] = again
        return drawn_BM

    @abstractmethod
    def loss(self, target_B: Tensor, negative_BM: Tensor, items: Items) -> Tensor:
        """Loss of every row [B]; a batch counts with its mean.

        Args:
            target_B: logits of the targets.
            negative_BM: logits of the negatives; of the whole catalogue where ``full``.
            items: which items these are.
        """

    def log_likelihood(self, scores_BN: Tensor, items_BK: Tensor) -> Tensor:
        """Log-likelihood of some items, on which distillation works: log σ as in the paper."""
        return functional.logsigmoid(scores_BN.gather(1, items_BK))
