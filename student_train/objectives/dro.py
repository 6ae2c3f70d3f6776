"""The distributionally robust term of DROS (Yang et al., SIGIR 2023)."""

import torch
from torch import Tensor

PROPENSITY_EXPONENT = 0.05


def propensity(train_count_N: Tensor) -> Tensor:
    """Popularity of each item, smoothed by one, normalised, to the power .05: [N]."""
    smoothed_N = train_count_N.float() + 1
    return (smoothed_N / smoothed_N.sum()) ** PROPENSITY_EXPONENT


def dro(scores_BN: Tensor, target_B: Tensor, propensity_N: Tensor, beta: float) -> Tensor:
    """Mean over rows of log(Σ_{j≠t} exp(p_j ŷ_j² / β) + exp(p_t (ŷ_t − 1)² / β)).

    Args:
        scores_BN: logits over the catalogue.
        target_B: item index t of the next item.
        propensity_N: see :func:`propensity`.
        beta: robustness radius.
    """
    exponents_BN = propensity_N * scores_BN.square() / beta
    target_score_B1 = scores_BN.gather(1, target_B[:, None])
    target_exponent_B1 = propensity_N[target_B][:, None] * (target_score_B1 - 1).square() / beta
    return torch.logsumexp(exponents_BN.scatter(1, target_B[:, None], target_exponent_B1), dim=1).mean()
