"""Stacked weights against torch's AdamW, clipping and the running average of each module on its own."""

import torch
from torch import nn

from cluster.averaging import RunningAverage
from student_train.config import TrainConfig
from student_train.stack import Stack

CONFIGS = [
    TrainConfig(learning_rate=0.1, weight_decay=0.3, average=0.5),
    TrainConfig(learning_rate=0.02, average=0.0, engine={"gradient_clip": 0.1}),
    TrainConfig(learning_rate=0.3, average=1.0, engine={"gradient_clip": 0}),
]
STEPS, LEFT = 6, 3


def modules() -> list[nn.Module]:
    torch.manual_seed(0)
    made = [nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)) for _ in CONFIGS]
    for module in made:
        module[0].bias.requires_grad_(False)
    return made


def inputs(step: int, member: int) -> torch.Tensor:
    return torch.randn(7, 4, generator=torch.Generator().manual_seed(100 * step + member))


def trained_alone(module: nn.Module, config: TrainConfig, member: int, steps: int) -> dict[str, torch.Tensor]:
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, config.learning_rate, weight_decay=config.weight_decay)
    average = RunningAverage(module, config.weight_average) if config.weight_average else None
    for step in range(steps):
        optimizer.zero_grad()
        module(inputs(step, member)).square().mean().backward()
        if config.engine.gradient_clip:
            nn.utils.clip_grad_norm_(weights, config.engine.gradient_clip)
        optimizer.step()
        if average:
            average.update()
    return average.full() if average else module.state_dict()


def advance(stack: Stack, members: list[int], module: nn.Module, step: int) -> None:
    for at, member in enumerate(members):
        own = {name: values[at] for name, values in stack.parameters.items()}
        torch.func.functional_call(module, own, (inputs(step, member),)).square().mean().backward()
    stack.step()


def test_members_are_updated_as_alone_also_after_one_has_left() -> None:
    made = modules()
    stack, members = (
        Stack([dict(module.named_parameters()) for module in made], CONFIGS, torch.device("cpu")),
        [0, 1, 2],
    )
    for step in range(STEPS):
        if step == LEFT:
            first = trained_alone(modules()[0], CONFIGS[0], 0, LEFT)
            assert all(torch.allclose(stack.state(0)[name], first[name], atol=1e-5) for name in first)
            members = [2, 1]
            stack.keep(members)
        advance(stack, members, made[0], step)
    for at, member in enumerate(members):
        expected = trained_alone(modules()[member], CONFIGS[member], member, STEPS)
        found = stack.state(at)
        assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)


def test_the_state_of_those_that_left_is_freed() -> None:
    made = modules()
    stack = Stack([dict(module.named_parameters()) for module in made], CONFIGS, torch.device("cpu"))
    advance(stack, [0, 1, 2], made[0], 0)
    stack.keep([1])
    assert all(len(values) == 1 for values in stack.parameters.values())
    assert len(stack._optimizer.state) == 3
