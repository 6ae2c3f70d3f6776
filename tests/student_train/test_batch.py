"""Batches that are made while others are trained on."""

from collections.abc import Iterator

import pytest
import torch

from student_train.batch import Batch, made_ahead
from student_train.rows import Rows
from tests.fake_cuda import CUDA, fake_cuda


def batches(count: int, made: list[int] | None = None) -> Iterator[Batch]:
    for size in range(1, count + 1):
        if made is not None:
            made.append(size)
        row_id = torch.arange(size)
        yield Batch(Rows(row_id, row_id[:, None], row_id), size, None, row_id[:, None], None)
    raise OSError("the disk is gone")


@pytest.mark.parametrize("device", [torch.device("cpu"), CUDA])
def test_all_come_in_order_and_so_does_what_goes_wrong(device: torch.device) -> None:
    seen = []
    with fake_cuda(), pytest.raises(OSError, match="the disk is gone"):
        for batch in made_ahead(batches(3), device):
            assert batch.rows.history.device == device
            seen.append(batch.own)
    assert seen == [1, 2, 3]


def test_one_is_made_ahead_for_a_gpu_and_none_for_the_cpu() -> None:
    with fake_cuda():
        for device, ahead in ((torch.device("cpu"), 0), (CUDA, 1)):
            made: list[int] = []
            running = made_ahead(batches(3, made), device)
            next(running)
            running.close()
            assert len(made) == 1 + ahead
