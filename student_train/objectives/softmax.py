"""Cross-entropy of the target over the whole catalogue."""

from torch import Tensor
from torch.nn import functional


def softmax(scores_BN: Tensor, target_B: Tensor, negatives_BM: Tensor) -> Tensor:
    """Mean of −log softmax(ŷ)_target; needs no negatives.

    Args:
        scores_BN: logits over the catalogue.
        target_B: item index of the next item.
        negatives_BM: ignored.
    """
    return functional.cross_entropy(scores_BN, target_B)
