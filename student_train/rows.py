"""A worker's rows as tensors: histories and targets from the data set's shards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from cluster.errors import StaleInputError
from cluster.files import parquet_file, read_parquet
from data_prep.reading import read_part, shard_rows
from data_prep.schema import SEQUENCES, Split

COLUMNS = pa.schema([SEQUENCES.field(name) for name in ("row_id", "history", "target")])

Change = Callable[[Tensor], Tensor]


@dataclass
class TeacherLabels:
    """What the teacher says about S rows."""

    items: Tensor
    """Its list [S, K], best first."""
    logits: Tensor
    """Its scores of them [S, K], larger is better, in standard deviations over the train rows."""
    distance: Tensor
    """Its scores of them [S, K], smaller is better, as it gives them."""
    confidence: Tensor
    """How far to trust it [S]: see :func:`student_train.distillation.importance.confidence`."""

    def map(self, change: Change) -> "TeacherLabels":
        """The same with every tensor changed."""
        return TeacherLabels(change(self.items), change(self.logits), change(self.distance), change(self.confidence))


@dataclass
class Rows:
    """Rows of one worker; all tensors share the first dimension. ``history`` [S, L] is padded on the left with N."""

    row_id: Tensor
    history: Tensor
    target: Tensor
    teacher: TeacherLabels | None = None

    def __len__(self) -> int:
        return len(self.row_id)

    def take(self, index: Tensor) -> "Rows":
        """The rows at ``index``."""
        return self.map(lambda values: values[index])

    def followed_by(self, other: "Rows") -> "Rows":
        """These rows and then those, without teacher."""
        return Rows(
            torch.cat([self.row_id, other.row_id]),
            torch.cat([self.history, other.history]),
            torch.cat([self.target, other.target]),
        )

    def to(self, device: torch.device) -> "Rows":
        """The rows on ``device``, which need not have them yet when this returns."""
        return self.map(lambda values: values.to(device, non_blocking=True))

    def map(self, change: Change) -> "Rows":
        """The same with every tensor changed."""
        teacher = self.teacher.map(change) if self.teacher else None
        return Rows(change(self.row_id), change(self.history), change(self.target), teacher)

    def batches(self, size: int, steps: int, generator: torch.Generator) -> Iterator["Rows"]:
        """``steps`` batches of ``size`` rows in random order, wrapping around where the rows do not suffice."""
        order = torch.randperm(len(self), generator=generator)
        yield from map(self.take, order.repeat(-(-steps * size // len(order)))[: steps * size].view(steps, size))


def read_rows(
    dataset: Path,
    split: Split,
    length: int,
    padding: int,
    rank: int = 0,
    world_size: int = 1,
    without: Tensor | None = None,
    allow_empty: bool = False,
) -> Rows:
    """Read this worker's contiguous slice of a split, opening only the shards it overlaps.

    Args:
        dataset: data set directory.
        split: which split.
        length: newest history items kept, L.
        padding: index that pads histories on the left, N.
        rank: this worker.
        world_size: number of workers.
        without: ids of rows to leave out; the others are shared out evenly.
        allow_empty: whether a worker may get no rows.

    Raises:
        StaleInputError: a split has fewer rows than there are workers.
    """
    shards = shard_rows(dataset, split)
    left_out = np.empty(0, np.int64) if without is None else np.sort(without.numpy())
    counts = [_kept(file, left_out) for file in shards] if len(left_out) else list(shards.values())
    total = sum(counts)
    if total < world_size and not allow_empty:
        raise StaleInputError(f"{dataset}: split {split} has {total} rows for {world_size} workers: use fewer workers")
    first, last = total * rank // world_size, total * (rank + 1) // world_size
    parts, start = [COLUMNS.empty_table()], 0
    for file, count in zip(shards, counts, strict=True):
        low, high = max(first - start, 0), min(last - start, count)
        if low < high:
            parts.append(_part(file, left_out, low, high))
        start += count
    table = pa.concat_tables(parts).combine_chunks()
    return Rows(
        row_id=column_tensor(table["row_id"]),
        history=_left_padded(table["history"].combine_chunks(), length, padding),
        target=column_tensor(table["target"]),
    )


def _part(shard: Path, left_out: npt.NDArray[np.int64], start: int, stop: int) -> pa.Table:
    """Rows ``start`` to ``stop`` of those of a shard that are not left out."""
    if not len(left_out):
        return read_part(shard, COLUMNS, start, stop)
    rows = read_parquet(shard, COLUMNS.names)
    return rows.filter(pc.invert(pc.is_in(rows["row_id"], pa.array(left_out)))).slice(start, stop - start)


def _kept(shard: Path, left_out: npt.NDArray[np.int64]) -> int:
    """How many rows of a shard are not left out; row ids rise from shard to shard."""
    with parquet_file(shard) as file:
        metadata = file.metadata
    groups = [metadata.row_group(at).column(0).statistics for at in range(metadata.num_row_groups)]
    low, high = min(group.min for group in groups), max(group.max for group in groups)
    within = np.searchsorted(left_out, high, side="right") - np.searchsorted(left_out, low)
    return int(metadata.num_rows - within)


def column_tensor(column: pa.ChunkedArray) -> Tensor:
    """A column of numbers; integers as int64."""
    values = torch.from_numpy(column.to_numpy().copy())
    return values if values.is_floating_point() else values.long()


def _left_padded(lists: pa.ListArray, length: int, padding: int) -> Tensor:
    """Newest ``length`` entries of every list as a matrix, padded on the left."""
    ends = lists.offsets.to_numpy()[1:, None].astype(np.int64)
    starts = lists.offsets.to_numpy()[:-1, None]
    at = ends - np.arange(length, 0, -1)
    values = lists.values.to_numpy()
    return torch.from_numpy(np.where(at >= starts, values[at.clip(0, len(values) - 1)], padding)).long()
