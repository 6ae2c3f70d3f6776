"""Cross-entropy of the target over the whole catalogue."""

from torch import Tensor
from torch.nn import functional

from student_train.losses.base import Items, StudentLoss


class Softmax(StudentLoss):
    """−log softmax(ŷ)_target."""

    full = True

    def loss(self, target_B: Tensor, negative_BM: Tensor, items: Items) -> Tensor:
        """See the class."""
        return functional.cross_entropy(negative_BM, items.target_B, reduction="none")

    def log_likelihood(self, scores_BN: Tensor, items_BK: Tensor) -> Tensor:
        """Log softmax over the catalogue."""
        return functional.log_softmax(scores_BN, dim=1).gather(1, items_BK)
