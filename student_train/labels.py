"""The teacher's labels of a worker's rows, joined by row id."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from cluster.errors import StaleInputError
from cluster.files import parquet_dataset
from cluster.storage import read_manifest
from data_prep.schema import SCORE_KIND_KEY, ScoreKind, Split, failure_files, label_files
from data_prep.score_kind import ScoreScale, distances, sign
from student_train.distillation.importance import confidence
from student_train.rows import TeacherLabels, column_tensor


def read_labels(row_id_B: Tensor, labels: Path, split: Split, top_k: int) -> TeacherLabels:
    """Find what the teacher says about rows by their row ids.

    Raises:
        StaleInputError: a row has no label, the stored lists are shorter than ``top_k``, or an earlier version wrote
            them.
    """
    scale = ScoreScale.from_metrics(read_manifest(labels, "label").metrics, split)
    if scale is None:
        raise StaleInputError(f"{labels} was made by an earlier version: run `dllm2rec label` again to complete it")
    stored = parquet_dataset(label_files(labels, split))
    kind: ScoreKind = stored.schema.metadata[SCORE_KIND_KEY].decode()
    first, last = int(row_id_B.min()), int(row_id_B.max())
    table = stored.to_table(
        columns=["row_id", "items", "scores", "target_score"],
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
            f"{int(row_id_B[absent.argmax()])}): run `dllm2rec label` again"
        )
    lists = table["items"].combine_chunks()
    lengths = pc.list_value_length(lists)
    shortest = pc.min(lengths).as_py()
    if shortest < top_k:
        raise StaleInputError(
            f"{labels}: the stored lists hold {shortest} items, `distillation.top_k` asks for {top_k}: "
            f"lower it or run `dllm2rec label --top-k {top_k}`"
        )
    starts = lists.offsets.to_numpy()[:-1][at]
    listed = starts[:, None] + np.arange(top_k)
    items = lists.values.to_numpy()[listed]
    scores = table["scores"].combine_chunks().values.to_numpy()[listed]
    found = torch.from_numpy(scores)
    target_score = column_tensor(table["target_score"])[torch.from_numpy(at)]
    return TeacherLabels(
        items=torch.from_numpy(items).long(),
        logits=standard_logits(found, kind, scale),
        distance=distances(found, kind),
        confidence=confidence(target_score, kind, scale),
    )


def failed_rows(labels: Path, split: Split) -> Tensor:
    """Ids of the rows that the teacher could not label, and the verb ``label`` accepted so."""
    files = failure_files(labels, split)
    if not files:
        return torch.empty(0, dtype=torch.int64)
    return column_tensor(parquet_dataset(files).to_table(columns=["row_id"])["row_id"])


def standard_logits(scores: Tensor, kind: ScoreKind, scale: ScoreScale) -> Tensor:
    """Teacher scores with larger ones better, in standard deviations of its score of the true item over all rows."""
    return sign(kind) * scores / scale.deviation
