"""What a distillation strategy must hold."""

import torch

from conformance.promise import promise
from student_train.config import DistillationConfig, LossConfig
from student_train.distillation import (
    DistillationBatch,
    FeatureStrategy,
    ResponseStrategy,
    feature_based,
    response_based,
)
from student_train.losses import student_loss
from student_train.rows import TeacherLabels

B, N, K, D, E = 8, 30, 5, 16, 24


def check_strategy(name: str) -> None:
    """Put a strategy, response-based or feature-based, through the promises that the training step relies on.

    Args:
        name: as in ``--distillation.strategy``: a built-in name or a dotted path.

    Raises:
        ConformanceError: names the promise that is broken.
        ConfigError: the dotted path leads to nothing.
    """
    torch.manual_seed(0)
    feature, response = feature_based(name), response_based(name)
    if feature:
        _feature(feature, name)
    if response:
        for loss in ("softmax", "bce"):
            _response(response, loss, f"{name} beside {loss}")


def _feature(strategy: FeatureStrategy, name: str) -> None:
    module = strategy(torch.randn(N, E), D)
    items_U = torch.arange(10)
    embedded_UD = torch.randn(10, D, requires_grad=True)
    loss = module(items_U, embedded_UD)
    promise(loss.shape == (), name, f"gives a scalar, not {tuple(loss.shape)}")
    promise(bool(loss.isfinite()), name, "is finite")
    (slope_UD,) = torch.autograd.grad(loss, embedded_UD, allow_unused=True)
    promise(slope_UD is not None and bool(slope_UD.any()), name, "teaches the student's item embeddings")


def _response(strategy: ResponseStrategy, loss: str, name: str) -> None:
    logits_BN = torch.zeros(B, N).normal_().requires_grad_()
    optimizer = torch.optim.SGD([logits_BN], 1.0)
    values = []
    for seed in range(40):
        value = strategy(_batch(logits_BN, loss, seed % 4))
        promise(value.shape == (), name, f"gives a scalar, not {tuple(value.shape)}")
        promise(bool(value.isfinite()), name, "is finite")
        optimizer.zero_grad()
        value.backward()
        promise(logits_BN.grad is not None and bool(logits_BN.grad.any()), name, "teaches the student's logits")
        optimizer.step()
        values.append(value.item())
    promise(
        sum(values[-8:]) < sum(values[:8]), name, f"can be learned: {values[0]:.4f} to {values[-1]:.4f} in 40 steps"
    )
    same = [strategy(_batch(logits_BN, loss, 1)).item() for _ in range(2)]
    promise(same[0] == same[1], name, "draws from the batch's generator, and nothing else")


def _batch(logits_BN: torch.Tensor, loss: str, seed: int) -> DistillationBatch:
    generator = torch.Generator().manual_seed(7)
    items_BK = torch.stack([torch.randperm(N, generator=generator)[:K] for _ in range(B)])
    distance_BK = torch.rand(B, K, generator=generator).sort(1).values
    confidence_B = torch.rand(B, generator=generator) + 0.5
    return DistillationBatch(
        scores_BN=logits_BN,
        target_B=torch.randint(N, (B,), generator=generator),
        history_BL=torch.randint(N + 1, (B, 4), generator=generator),
        teacher=TeacherLabels(items_BK, -distance_BK, distance_BK, confidence_B),
        drawn_BM=torch.randint(N, (B, 1), generator=generator),
        popularity_N=torch.full((N,), 1 / N),
        propensity_N=torch.ones(N),
        dro_weight=0.0,
        dro_beta=1.0,
        config=DistillationConfig(top_k=K),
        student_loss=student_loss(LossConfig(name=loss)),
        generator=torch.Generator().manual_seed(seed),
    )
