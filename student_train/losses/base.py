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
        n_items, size = len(popularity_N), (len(target_B), self.config.negatives)
        taken_BT, free_B1 = _taken(torch.cat([history_BL, target_B[:, None]], dim=1), n_items)
        share_BM = torch.rand(size, dtype=torch.float64, generator=generator, device=generator.device)
        # The r-th free item stands behind as many taken ones as have less than r free items below them.
        place_BM = (share_BM.to(target_B.device) * free_B1).long()
        drawn_BM = place_BM + torch.searchsorted(taken_BT - _places(taken_BT), place_BM, right=True)
        return drawn_BM.clamp(max=n_items - 1)  # a history may hold the whole of a tiny catalogue

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


def _taken(items_BT: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """Every item of a row once, in order, then numbers beyond all items [B, T]; how many items are left [B, 1]."""
    items_BT = items_BT.sort(1).values
    again_BT = functional.pad(items_BT[:, 1:] == items_BT[:, :-1], (1, 0))
    extra_BT = (items_BT >= n_items) | again_BT
    taken_BT = items_BT.masked_fill(extra_BT, 2 * n_items + items_BT.shape[1]).sort(1).values
    return taken_BT, n_items - (~extra_BT).sum(1, keepdim=True)


def _places(items_BT: Tensor) -> Tensor:
    return torch.arange(items_BT.shape[1], device=items_BT.device)
