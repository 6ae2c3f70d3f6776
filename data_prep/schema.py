"""The schema of every file that rooms exchange: file layout, Arrow schemas, column names and units.

A data set directory (verb ``prepare``)::

    items.parquet                                    one row per catalogue item, in item_index order (ITEMS)
    sequences/{train,validation,test}/part-*.parquet one row per (history, target) (SEQUENCES); rows of one user stand
                                                     together and in order; the manifest counts each shard's
    sequences/gate/part-*.parquet                    the same, of the validation users whose rows ``promote`` alone sees
    manifest.json

A label directory (verb ``label``)::

    labels/{train,validation,test}/part-*.parquet    one row per sequence row, keyed by row_id (LABELS)
    failures/{train,validation,test}/part-*.parquet  rows that could not be labelled, if any (FAILURES)
    item_embeddings.safetensors                      tensor ``embeddings`` [N, E], float32, in item_index order
    job.json                                         fingerprints and settings that the labels depend on
    manifest.json                                    ``inputs`` names the data set and the teacher

A student directory (verb ``train``)::

    model.onnx, items.parquet                        all that is needed to answer, without the teacher's width: float32
                                                     logits [B, N] from histories [B, L], int64, padded on the left
    config.json, model.safetensors                   the same student for torch
    gate.parquet                                     where it ranks the true item of every gate row (RANKS), if any
    curve.json                                       loss and validation metrics of every evaluated epoch
    manifest.json

N is the number of items; the padding index of histories is N.
"""

from pathlib import Path
from typing import Literal

import pyarrow as pa

Split = Literal["train", "validation", "test", "gate"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
"""Those that every data set has. The gate is read by the finished student alone, and by nothing that chooses one."""

ScoreKind = Literal["distance", "cosine", "logprob"]
"""Meaning of teacher scores: ``distance`` is L2, smaller is better; ``cosine`` lies in [-1, 1], larger is better;
``logprob`` is the natural logarithm of a title's probability after the prompt, larger is better."""

ITEMS_FILE = "items.parquet"
EMBEDDINGS_FILE = "item_embeddings.safetensors"
EMBEDDINGS_TENSOR = "embeddings"
STUDENT_CONFIG_FILE = "config.json"
STUDENT_WEIGHTS_FILE = "model.safetensors"
RANKS_FILE = "gate.parquet"

ITEMS = pa.schema(
    [
        pa.field("item_index", pa.int32(), nullable=False),  # 0 … N-1, equal to the row number
        pa.field("item_id", pa.string(), nullable=False),  # as in the raw data
        pa.field("title", pa.string(), nullable=False),  # HTML entities decoded, never empty
        pa.field("train_count", pa.int64(), nullable=False),  # rows of the train split that have it as target
    ]
)

SEQUENCES = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),  # unique over all splits
        pa.field("user_id", pa.string(), nullable=False),  # as in the raw data
        pa.field("position", pa.int32(), nullable=False),  # of the target in the user's whole sequence, from 0
        pa.field("history", pa.list_(pa.int32()), nullable=False),  # item indices, oldest first, at most max_history
        pa.field("target", pa.int32(), nullable=False),  # item index
        pa.field("timestamp", pa.float64(), nullable=False),  # of the target, in the raw data's unit
    ]
)

LABELS = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("items", pa.list_(pa.int32()), nullable=False),  # the teacher's top K item indices, best first
        pa.field("scores", pa.list_(pa.float32()), nullable=False),  # of those items
        pa.field("target_score", pa.float32(), nullable=False),  # of the true item, same meaning as scores
        pa.field("text", pa.string()),  # generated title; null where the teacher generates none
    ]
)
FAILURES = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("error", pa.string(), nullable=False),  # one line
    ]
)
RANKS = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("user", pa.int32(), nullable=False),  # number of the row's user among those of the gate
        pa.field("rank", pa.int32(), nullable=False),  # of the true item among all items, from 1
    ]
)
SCORE_KIND_KEY = b"score_kind"


def labels_schema(kind: ScoreKind) -> pa.Schema:
    """LABELS with the meaning of its scores in the schema's metadata."""
    return LABELS.with_metadata({SCORE_KIND_KEY: kind.encode()})


def sequence_files(dataset: Path, split: Split) -> list[Path]:
    """Shards of one split, in order."""
    return _numbered(dataset / "sequences" / split)


def label_files(labels: Path, split: Split) -> list[Path]:
    """Shards of one split's labels, in order."""
    return _numbered(labels / "labels" / split)


def failure_files(labels: Path, split: Split) -> list[Path]:
    """Shards with rows of one split that could not be labelled, in order."""
    return _numbered(labels / "failures" / split)


def label_file(labels: Path, split: Split, number: int) -> Path:
    """Shard ``number`` of one split's labels."""
    return labels / "labels" / split / shard_name(number)


def failure_file(labels: Path, split: Split, number: int) -> Path:
    """The rows that are missing in the label shard of the same number."""
    return labels / "failures" / split / shard_name(number)


def shard_name(index: int) -> str:
    """File name of shard ``index``."""
    return f"part-{index:08d}.parquet"


def _numbered(folder: Path) -> list[Path]:
    """Shards in the order of their numbers, which earlier versions wrote with fewer digits."""
    found = {file.stem.removeprefix("part-"): file for file in folder.glob("part-*.parquet")}
    return [found[number] for number in sorted(filter(str.isdecimal, found), key=int)]
