"""Our own parts pass the checks that a user's must pass; parts that break a promise are named."""

import pytest
import torch
from torch import Tensor, nn

from conformance import check_loss, check_model, check_strategy
from conformance.promise import ConformanceError
from student_train.components import BACKBONES, LOSSES, STRATEGIES
from student_train.config import ModelConfig
from student_train.distillation import DistillationBatch
from student_train.losses import StudentLoss
from student_train.losses.base import Items


@pytest.mark.parametrize("name", BACKBONES)
def test_every_model_conforms(name: str) -> None:
    check_model(name)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_conforms(name: str) -> None:
    check_loss(name)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_conforms(name: str) -> None:
    check_strategy(name)


class MeanPool(nn.Module):
    """A model of a user's own that conforms."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.newest = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, embedded_BLD: Tensor, present_BL: Tensor) -> Tensor:
        known_BLD = embedded_BLD * present_BL[:, :, None]
        return self.norm(known_BLD.sum(1) / present_BL.sum(1, keepdim=True) + self.newest(embedded_BLD[:, -1]))


class LooksAtPadding(MeanPool):
    def forward(self, embedded_BLD: Tensor, present_BL: Tensor) -> Tensor:
        return super().forward(embedded_BLD + 1, torch.ones_like(present_BL))


class MixesRows(MeanPool):
    def forward(self, embedded_BLD: Tensor, present_BL: Tensor) -> Tensor:
        states_BD = super().forward(embedded_BLD, present_BL)
        return states_BD - states_BD.mean(0)


class HasIdleWeights(MeanPool):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.idle = nn.Linear(2, 2)


def test_a_model_of_the_users_own_conforms() -> None:
    check_model(f"{__name__}:MeanPool")


@pytest.mark.parametrize(
    ("model", "broken"),
    [
        (LooksAtPadding, "does not look at padding"),
        (MixesRows, "does not let rows of a batch see each other"),
        (HasIdleWeights, r"uses all of its parameters.*idle\.weight"),
    ],
)
def test_a_model_that_breaks_a_promise_is_named(model: type, broken: str) -> None:
    with pytest.raises(ConformanceError, match=f"{model.__name__}: {broken}"):
        check_model(f"{__name__}:{model.__name__}")


class Backwards(StudentLoss):
    full = True

    def loss(self, target_B: Tensor, negative_BM: Tensor, items: Items) -> Tensor:
        return target_B


class Batched(StudentLoss):
    full = True

    def loss(self, target_B: Tensor, negative_BM: Tensor, items: Items) -> Tensor:
        return (negative_BM.logsumexp(1) - target_B).mean().expand(len(target_B))


@pytest.mark.parametrize(
    ("loss", "broken"),
    [(Backwards, "falls when the target's logit rises"), (Batched, "does not let rows of a batch see each other")],
)
def test_a_loss_that_breaks_a_promise_is_named(loss: type, broken: str) -> None:
    with pytest.raises(ConformanceError, match=broken):
        check_loss(f"{__name__}:{loss.__name__}")


def per_row(batch: DistillationBatch) -> Tensor:
    return -batch.log_likelihood_BK.sum(1)


def teaches_nothing(batch: DistillationBatch) -> Tensor:
    return torch.zeros((), requires_grad=True) + 0 * batch.scores_BN.sum()


@pytest.mark.parametrize(
    ("strategy", "broken"), [(per_row, "gives a scalar, not"), (teaches_nothing, "teaches the student's logits")]
)
def test_a_strategy_that_breaks_a_promise_is_named(strategy: object, broken: str) -> None:
    with pytest.raises(ConformanceError, match=broken):
        check_strategy(f"{__name__}:{strategy.__name__}")
