"""The loss of an epoch, and whether every step's is finite."""

import math

import torch
from torch import Tensor

from cluster.errors import TrainingError
from student_train.batch import Batch

READ_EVERY = 16
"""Steps between two looks at the losses: to look at one is to wait for the device."""


class EpochLoss:
    """The losses of an epoch, which stay on the device for some steps before they are read and checked."""

    def __init__(self, epoch: int, worker: int) -> None:
        self._epoch, self._worker = epoch, worker
        self._read = list[float]()
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, loss: Tensor, batch: Batch) -> None:
        """Take in the loss of a step.

        Raises:
            TrainingError: it, or one of a step before it, is not finite.
        """
        self._waiting.append((loss.detach(), batch.rows.row_id))
        if len(self._waiting) == READ_EVERY:
            self._look()

    def total(self) -> float:
        """The sum of all.

        Raises:
            TrainingError: one is not finite.
        """
        if self._waiting:
            self._look()
        return math.fsum(self._read)

    def _look(self) -> None:
        losses, row_ids = zip(*self._waiting, strict=True)
        for loss, row_id_B in zip(torch.stack(losses).tolist(), row_ids, strict=True):
            if not math.isfinite(loss):
                rows = ", ".join(map(str, row_id_B[:5].tolist()))
                raise TrainingError(
                    f"loss is {loss} at epoch {self._epoch}, step {len(self._read)}, worker {self._worker} (rows "
                    f"{rows} …): lower --learning-rate or --distillation.lam"
                )
            self._read.append(loss)
        self._waiting.clear()
