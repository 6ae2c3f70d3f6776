"""A batch as a training step takes it: all that is drawn for it is drawn before, beside the step."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from student_train.rows import Change, Rows, TeacherLabels


@dataclass
class Batch:
    """What a step needs of its rows; made on the host, so that no step waits for its device."""

    rows: Rows
    """Its own rows, followed by their Cloze rows."""
    own: int
    """How many are its own, B."""
    teacher: TeacherLabels | None
    """Of its own rows."""
    negative_BM: Tensor
    """Items drawn for each row, Cloze rows too; [..., 0] under a loss of the whole catalogue."""
    item_U: Tensor | None
    """Distinct items of all histories, where a strategy compares embeddings."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on ``device``, which need not have it yet when this returns."""
        return self._map(lambda values: values.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The batch in memory that a GPU reads by itself."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change: Change) -> "Batch":
        return Batch(
            self.rows.map(change),
            self.own,
            self.teacher.map(change) if self.teacher else None,
            change(self.negative_BM),
            change(self.item_U) if self.item_U is not None else None,
        )


def made_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on ``device``; for a GPU a thread makes each while the one before it is trained on."""
    if device.type == "cpu":
        yield from batches
        return
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(_next, batches)
        while (batch := coming.result()) is not None:
            coming = maker.submit(_next, batches)
            yield batch.to(device)


def _next(batches: Iterator[Batch]) -> Batch | None:
    batch = next(batches, None)
    return batch.pinned() if batch and torch.cuda.is_available() else batch
