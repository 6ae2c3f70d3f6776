"""What is done member by member below vmap, and every strategy and objective above it."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from student_train.config import DistillationConfig, LossConfig, ModelConfig, TrainConfig
from student_train.dropout import Dropout
from student_train.distilled_student import DistilledStudent
from student_train.memberwise import Streams, drawn, each, training_together
from student_train.components import LOSSES, RESPONSE_BASED
from student_train.rows import Rows, TeacherLabels
from student_train.training_loss import TrainingLoss


def members(rows: list[int], dropout: tuple[float, ...] = (0.5, 0.5)) -> Streams:
    streams = [[torch.Generator().manual_seed(seed) for seed in (0, 1)] for _ in range(2)]
    return Streams(streams[0], streams[1], list(dropout), rows)


def uniform(generator: torch.Generator, values_B: Tensor) -> Tensor:
    return torch.rand(len(values_B), 3, generator=generator)


def test_a_member_draws_for_its_own_rows_what_it_draws_alone() -> None:
    with training_together(members([4, 2])):
        found = vmap(lambda values: drawn(uniform, torch.default_generator, values))(torch.zeros(2, 4))
    first, second = (torch.rand(n, 3, generator=torch.Generator().manual_seed(s)) for s, n in ((0, 4), (1, 2)))
    assert torch.equal(found[0], first)
    assert torch.equal(found[1, :2], second)
    assert (found[1, 2:] == 0).all()


def test_alone_the_named_generator_is_used() -> None:
    found = drawn(uniform, torch.Generator().manual_seed(5), torch.zeros(4))
    assert torch.equal(found, torch.rand(4, 3, generator=torch.Generator().manual_seed(5)))


def test_what_is_done_member_by_member_has_its_gradient() -> None:
    values = torch.randn(2, 3, requires_grad=True)
    with training_together(members([3, 3])):
        vmap(lambda own: each(lambda member, x: x * (member + 1), own))(values).sum().backward()
    assert torch.equal(values.grad, torch.tensor([[1.0] * 3, [2.0] * 3]))


def test_dropout_of_a_member_is_its_own() -> None:
    ones = torch.ones(2, 6, 5)
    with training_together(members([6, 4], dropout=(0.5, 0.25))):
        found = vmap(Dropout(0.5))(ones)
    for member, (rate, rows) in enumerate(((0.5, 6), (0.25, 4))):
        torch.manual_seed(member)
        assert torch.equal(found[member, :rows], Dropout(rate)(ones[member, :rows]))


N = 12


def batch(seed: int) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    items = torch.stack([torch.randperm(N, generator=generator)[:4] for _ in range(6)])
    distance = torch.rand(6, 4, generator=generator).sort(1).values
    taught = TeacherLabels(items, -distance, distance, torch.rand(6, generator=generator) + 0.5)
    history, target = (torch.randint(N, size, generator=generator) for size in ((6, 4), (6,)))
    return Rows(torch.arange(6), history, target, taught)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("strategy", RESPONSE_BASED)
def test_every_ranking_strategy_under_every_objective_has_its_loss_under_vmap(strategy: str, loss: str) -> None:
    config = TrainConfig(
        student="dros",
        shape=ModelConfig(width=8, heads=1, history=4, dropout=0),
        objective=LossConfig(name=loss, negatives=2),
        distillation=DistillationConfig(strategy=strategy, top_k=4, cloze=0, ed_weight=0),
    )
    learners = [DistilledStudent("dros", config.model, N, None, config.distillation) for _ in range(2)]
    step, rows = TrainingLoss(config, torch.arange(N)), [batch(0), batch(1)]

    def loss_of(parameters: dict[str, Tensor], *tensors: Tensor) -> Tensor:
        own = Rows(*tensors[:3], teacher=TeacherLabels(*tensors[3:]))
        score = partial(functional_call, learners[0], parameters)
        return step.losses(lambda *asked: score(asked), own, own, torch.default_generator).total

    def tensors(own: Rows) -> tuple[Tensor, ...]:
        assert own.teacher
        return own.row_id, own.history, own.target, *vars(own.teacher).values()

    stacked, _ = stack_module_state(learners)
    with training_together(members([6, 6], dropout=(0, 0))):
        found = vmap(loss_of)(stacked, *map(torch.stack, zip(*map(tensors, rows), strict=True)))
    for seed, (own, learner) in enumerate(zip(rows, learners, strict=True)):
        expected = step(learner, own, torch.Generator().manual_seed(seed)).total
        assert found[seed].item() == pytest.approx(expected.item(), rel=1e-5)
