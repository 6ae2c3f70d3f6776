"""Losses are read some steps late, but every one of them, and what is wrong is named by its own step."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from cluster.errors import TrainingError
from student_train.batch import Batch
from student_train.epoch_loss import READ_EVERY, EpochLoss
from student_train.rows import Rows
from tests.fake_cuda import fake_cuda


def batch(step: int) -> Batch:
    row_id = torch.tensor([10 * step, 10 * step + 1])
    return Batch(Rows(row_id, row_id[:, None], row_id), 2, None, row_id[:, None], None)


@pytest.mark.parametrize(("steps", "wrong"), [(READ_EVERY, 0), (2 * READ_EVERY + 3, READ_EVERY + 1), (2, 1)])
def test_a_loss_that_is_not_finite_is_named_by_its_step_and_rows(steps: int, wrong: int) -> None:
    losses = EpochLoss(epoch=7, worker=1)
    message = rf"loss is inf at epoch 7, step {wrong}, worker 1 \(rows {10 * wrong}, {10 * wrong + 1} …\): lower"
    with pytest.raises(TrainingError, match=message):
        for step in range(steps):
            losses.add(torch.tensor(torch.inf if step >= wrong else 1.0), batch(step))
        losses.total()


def test_the_total_is_that_of_all_steps() -> None:
    losses = EpochLoss(1, 0)
    for step in range(2 * READ_EVERY + 1):
        losses.add(torch.tensor(0.5, requires_grad=True), batch(step))
    assert losses.total() == READ_EVERY + 0.5


def test_the_device_is_waited_for_once_in_a_while() -> None:
    losses = EpochLoss(1, 0)
    with fake_cuda() as put:
        for step in range(READ_EVERY - 1):
            losses.add(put(torch.ones(())), batch(step))
        with pytest.raises(DataDependentOutputException):
            losses.add(put(torch.ones(())), batch(READ_EVERY))
