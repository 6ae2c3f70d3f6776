"""A worker's rows as tensors: histories and targets from the data set's shards, teacher lists joined by row id."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch
from torch import Tensor

from cluster.errors import StaleInputError
from data_prep.schema import SCORE_KIND_KEY, ScoreKind, Split, label_files, sequence_files


@dataclass
class Rows:
    """Rows of one worker; all tensors share the first dimension.

    ``history`` [S, L] is padded on the left with N; ``teacher_items`` [S, K] and ``confidence`` [S] are there only
    when the student is distilled.
    """

    row_id: Tensor
    history: Tensor
    target: Tensor
    teacher_items: Tensor | None = None
    confidence: Tensor | None = None

    def __len__(self) -> int:
        return len(self.row_id)

    def take(self, index: Tensor) -> "Rows":
        """The rows at ``index``."""
        taken = {f.name: getattr(self, f.name) for f in fields(self)}
        return Rows(**{name: value[index] for name, value in taken.items() if value is not None})

    def to(self, device: torch.device) -> "Rows":
        """The rows on ``device``."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in moved.items() if value is not None})

    def batches(self, size: int, steps: int, generator: torch.Generator) -> Iterator["Rows"]:
        """``steps`` batches of ``size`` rows in random order, wrapping around where the rows do not suffice."""
        order = torch.randperm(len(self), generator=generator)
        order = order.repeat(-(-steps * size // len(order)))
        for start in range(0, steps * size, size):
            yield self.take(order[start : start + size])


def read_rows(dataset: Path, split: Split, length: int, padding: int, rank: int = 0, world_size: int = 1) -> Rows:
    """Read this worker's contiguous slice of a split, opening only the shards it overlaps.

    Args:
        dataset: data set directory.
        split: which split.
        length: newest history items kept, L.
        padding: index that pads histories on the left, N.
        rank: this worker.
        world_size: number of workers.

    Raises:
        StaleInputError: a split has fewer rows than there are workers.
    """
    files = sequence_files(dataset, split)
    counts = [pq.read_metadata(file).num_rows for file in files]
    total = sum(counts)
    if total < world_size:
        raise StaleInputError(f"{dataset}: split {split} has {total} rows for {world_size} workers: use fewer workers")
    first, last = total * rank // world_size, total * (rank + 1) // world_size
    parts, start = [], 0
    for file, count in zip(files, counts, strict=True):
        low, high = max(first - start, 0), min(last - start, count)
        if low < high:
            parts.append(pq.read_table(file, columns=["row_id", "history", "target"]).slice(low, high - low))
        start += count
    table = pa.concat_tables(parts).combine_chunks()
    return Rows(
        row_id=_tensor(table["row_id"]),
        history=_left_padded(table["history"].combine_chunks(), length, padding),
        target=_tensor(table["target"]),
    )


class Labels(NamedTuple):
    """The teacher's labels of B rows, in their order."""

    items: Tensor
    """The teacher's list, best first [B, K]."""
    target_score: Tensor
    """The teacher's score of the true item [B]."""
    every_score: Tensor
    """The same over all rows of the split."""
    kind: ScoreKind


def read_labels(row_id_B: Tensor, labels: Path, split: Split, top_k: int) -> Labels:
    """Find the teacher's labels of rows by their row ids.

    Raises:
        StaleInputError: a row has no label, or the stored lists are shorter than ``top_k``.
    """
    stored = ds.dataset([str(file) for file in label_files(labels, split)], format="parquet")
    kind: ScoreKind = stored.schema.metadata[SCORE_KIND_KEY].decode()
    every_score = _tensor(stored.to_table(columns=["target_score"])["target_score"])
    first, last = int(row_id_B.min()), int(row_id_B.max())
    table = stored.to_table(
        columns=["row_id", "items", "target_score"],
        filter=(pc.field("row_id") >= first) & (pc.field("row_id") <= last),
    ).combine_chunks()
    label_id = table["row_id"].to_numpy()
    order = np.argsort(label_id, kind="stable")
    place = np.searchsorted(label_id, row_id_B.numpy(), sorter=order).clip(max=len(order) - 1)
    at = order[place]
    absent = label_id[at] != row_id_B.numpy()
    if absent.any():
        raise StaleInputError(
            f"{labels}: {int(absent.sum())} {split} rows have no label (first: row "
            f"{int(row_id_B[absent.argmax()])}): run `dllm2rec teach` again"
        )
    lists = table["items"].combine_chunks()
    lengths = pc.list_value_length(lists)
    shortest = pc.min(lengths).as_py()
    if shortest < top_k:
        raise StaleInputError(
            f"{labels}: the stored lists hold {shortest} items, `distillation.top_k` asks for {top_k}: "
            f"lower it or run `dllm2rec teach --top-k {top_k}`"
        )
    starts = lists.offsets.to_numpy()[:-1][at]
    items = lists.values.to_numpy()[starts[:, None] + np.arange(top_k)]
    score_B = _tensor(table["target_score"])[torch.from_numpy(at)]
    return Labels(torch.from_numpy(items).long(), score_B, every_score, kind)


def _tensor(column: pa.ChunkedArray) -> Tensor:
    values = torch.from_numpy(column.to_numpy().copy())
    return values if values.is_floating_point() else values.long()


def _left_padded(lists: pa.ListArray, length: int, padding: int) -> Tensor:
    """Newest ``length`` entries of every list as a matrix, padded on the left."""
    ends = lists.offsets.to_numpy()[1:, None].astype(np.int64)
    starts = lists.offsets.to_numpy()[:-1, None]
    at = ends - np.arange(length, 0, -1)
    values = lists.values.to_numpy()
    return torch.from_numpy(np.where(at >= starts, values[at.clip(0, len(values) - 1)], padding)).long()
