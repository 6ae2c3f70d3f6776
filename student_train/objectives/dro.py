"""The distributionally robust term of DROS (Yang et al., SIGIR 2023), for use with any objective."""

from typing import Any

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
    return dro_rows(scores_BN, target_B, propensity_N, beta).mean()


def dro_rows(scores_BN: Tensor, target_B: Tensor, propensity_N: Tensor, beta: float) -> Tensor:
    """The same row by row [B]."""
    return _LogSumExp.apply(scores_BN, target_B, propensity_N / beta)


class _LogSumExp(torch.autograd.Function):
    """The log-sum per row [B], with its gradient computed on the way: three passes over [B, N] instead of nine."""

    @staticmethod
    def forward(ctx: Any, scores_BN: Tensor, target_B: Tensor, scale_N: Tensor) -> Tensor:  # noqa: ANN401
        target_B1 = target_B[:, None]
        distance_BN = scores_BN.scatter_add(1, target_B1, -torch.ones_like(target_B1, dtype=scores_BN.dtype))
        exponents_BN = distance_BN.square().mul_(scale_N)
        total_B1 = exponents_BN.logsumexp(1, keepdim=True)
        share_BN = exponents_BN.sub_(total_B1).exp_()
        ctx.save_for_backward(share_BN.mul_(distance_BN).mul_(2 * scale_N))
        return total_B1.squeeze(1)

    @staticmethod
    def backward(ctx: Any, gradient_B: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (slope_BN,) = ctx.saved_tensors
        return slope_BN * gradient_B[:, None], None, None
