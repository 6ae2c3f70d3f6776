"""The running average of weights, and what the engine gives out with it."""

import pytest
import torch
from torch import nn

from cluster.averaging import RunningAverage
from cluster.config import DeepSpeedConfig


def weights(*values: float, share: float) -> float:
    """The average after a single weight has taken ``values``."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 100.0)
    average = RunningAverage(module, share)
    for value in values:
        nn.init.constant_(module.weight, value)
        average.update()
    return float(average.full()["weight"])


def test_over_all_steps_it_is_close_to_the_mean() -> None:
    assert weights(1.0, share=1.0) == pytest.approx((100 + 1) / 2)
    assert weights(1.0, 4.0, share=1.0) == pytest.approx((100 + 1 + 4) / 3)


def test_a_smaller_share_forgets_the_start() -> None:
    values = [float(step) for step in range(1, 1001)]
    tenth = weights(*values, share=0.1)
    # Weights w_n proportional to n^9: the mean of n over [0, 1000] is 10/11 of its end.
    assert tenth == pytest.approx(1000 * 10 / 11, rel=0.01)
    assert weights(*values, share=0.5) < tenth < 1000


def test_it_goes_on_from_its_state() -> None:
    module = nn.Linear(2, 2)
    first = RunningAverage(module, 0.5)
    first.update()
    second = RunningAverage(module, 0.5)
    second.restore(first.state())
    for average in (first, second):
        nn.init.constant_(module.weight, 3.0)
        average.update()
    assert all(torch.equal(first.full()[name], second.full()[name]) for name in ("weight", "bias"))


@pytest.mark.engine
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_engine_gives_out_the_average_of_its_updates(stage: int) -> None:
    from cluster.engine import Engine

    torch.manual_seed(0)
    module = nn.Linear(4, 3)
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    engine = Engine(
        module, optimizer, DeepSpeedConfig(zero_stage=stage, gradient_accumulation=2, gradient_clip=0), 2, average=1.0
    )
    seen = [start]
    for number in range(6):
        engine.backward(engine(torch.ones(2, 4)).square().mean())
        engine.step()
        if number % 2:
            seen.append(engine._weights())
    given = engine.state_dict()
    for name in start:
        mean = torch.stack([weights[name] for weights in seen]).mean(0)
        assert torch.allclose(given[name], mean, atol=1e-5)
    assert not torch.equal(given["weight"], seen[-1]["weight"])
