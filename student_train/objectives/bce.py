"""Binary cross-entropy of the target and sampled negatives (paper, section 2.2)."""

import torch
from torch import Tensor
from torch.nn import functional


def bce(scores_BN: Tensor, target_B: Tensor, negatives_BM: Tensor) -> Tensor:
    """Mean of −log σ(ŷ_target) and −log(1 − σ(ŷ_negative)) over targets and negatives alike.

    Args:
        scores_BN: logits over the catalogue.
        target_B: item index of the next item.
        negatives_BM: sampled item indices.
    """
    positive = -functional.logsigmoid(scores_BN.gather(1, target_B[:, None]))
    negative = -functional.logsigmoid(-scores_BN.gather(1, negatives_BM))
    return torch.cat([positive, negative], dim=1).mean()
