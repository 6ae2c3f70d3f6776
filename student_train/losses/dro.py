"""The distributionally robust term of DROS (Yang et al., SIGIR 2023), for use with any loss."""

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
    return _LogSumExp.apply(scores_BN, target_B, propensity_N / beta)[0]


class _LogSumExp(torch.autograd.Function):
    """The log-sum per row, with its gradient computed on the way: three passes over [B, N] instead of nine.

    Scores [..., B, N], targets [..., B] and scales that broadcast against the scores.
    """

    @staticmethod
    def forward(scores_BN: Tensor, target_B: Tensor, scale_N: Tensor) -> tuple[Tensor, Tensor]:
        target_B1 = target_B[..., None]
        distance_BN = scores_BN.scatter_add(-1, target_B1, -torch.ones_like(target_B1, dtype=scores_BN.dtype))
        exponents_BN = distance_BN.square().mul_(scale_N)
        total_B1 = exponents_BN.logsumexp(-1, keepdim=True)
        share_BN = exponents_BN.sub_(total_B1).exp_()
        return total_B1.squeeze(-1), share_BN.mul_(distance_BN).mul_(2 * scale_N)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401
        slope_BN = output[1]
        ctx.mark_non_differentiable(slope_BN)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(slope_BN)

    @staticmethod
    def backward(ctx: Any, gradient_B: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:  # noqa: ANN401
        (slope_BN,) = ctx.saved_tensors
        return None if gradient_B is None else slope_BN * gradient_B[..., None], None, None
