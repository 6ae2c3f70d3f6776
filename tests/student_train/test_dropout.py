"""The dropout mask: rate, mean, independence, modes."""

import pytest
import torch

from student_train.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.9])
def test_rate_and_mean_are_kept(rate: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(rate)(torch.ones(1000, 1001))
    assert (dropped == 0).float().mean().item() == pytest.approx(rate, abs=4e-3)
    assert dropped.mean().item() == pytest.approx(1.0, abs=1e-2)


def test_every_byte_of_a_random_word_is_used_alike() -> None:
    torch.manual_seed(0)
    kept = Dropout(0.5)(torch.ones(200_000, 8)) > 0
    assert (kept.float().mean(0) - 0.5).abs().max() < 5e-3
    together = (kept[:, :4] & kept[:, 4:]).float().mean(0)
    assert (together - 0.25).abs().max() < 5e-3


def test_gradients_are_those_of_the_kept_elements() -> None:
    values = torch.ones(64, requires_grad=True)
    out = Dropout(0.5)(values)
    out.sum().backward()
    assert torch.equal(values.grad, out.detach())


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero() -> None:
    values = torch.randn(100)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_the_seed_decides() -> None:
    torch.manual_seed(3)
    first = Dropout(0.5)(torch.ones(100))
    torch.manual_seed(3)
    assert torch.equal(first, Dropout(0.5)(torch.ones(100)))
