"""The official code's teacher files: ``all_embeddings.pt``, ``myrank_train.txt``, ``confidence_train.txt``.

``myrank_train.txt`` has a line of item numbers per train row, best first; ``confidence_train.txt`` their L2 distances,
which the official code calls confidence.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster.errors import DataError, StaleInputError
from cluster.files import read_parquet
from data_prep.schema import SCORE_KIND_KEY, ScoreKind, label_files
from data_prep.score_kind import distances

EMBEDDINGS, RANKING, DISTANCES = "all_embeddings.pt", "myrank_train.txt", "confidence_train.txt"


@dataclass
class OfficialLabels:
    """What a teacher says about the train rows, in their order."""

    items: np.ndarray
    """Its lists [S, K], best first."""
    distances: np.ndarray
    """L2 distances [S, K]."""
    embeddings: Tensor
    """Of all items [N, E]."""


def read_labels(directory: Path, rows: int, items: int) -> OfficialLabels:
    """Read and check the three files.

    Args:
        directory: where they lie.
        rows: train rows, which the lists must be of.
        items: items, which the embeddings must be of.

    Raises:
        DataError: a file is absent, damaged or more than numbers, or does not fit the rows or the items.
    """
    numbers = _read_numbers(directory / RANKING, rows)
    lists = numbers.astype(np.int64)
    distances = _read_numbers(directory / DISTANCES, rows).astype(np.float32)
    if lists.shape != distances.shape:
        raise DataError(
            f"{directory}: lists of {lists.shape[1]} items in {RANKING}, of {distances.shape[1]} in {DISTANCES}"
        )
    strange = np.argwhere((lists < 0) | (lists >= items) | (lists != numbers))
    if len(strange):
        row, place = strange[0]
        raise DataError(
            f"{directory / RANKING}, line {row + 1}: {numbers[row, place]:g} is no item in 0 … {items - 1}: count "
            "items from 0"
        )
    return OfficialLabels(lists, distances, read_embeddings(directory / EMBEDDINGS, items))


def write_labels(labels: Path, rows: int, embeddings: Tensor, directory: Path) -> None:
    """Write the three files from the labels of all ``rows`` train rows, in the order of their row ids.

    Raises:
        StaleInputError: a train row has no label.
    """
    files = label_files(labels, "train")
    if not files:
        raise StaleInputError(f"{labels} holds no labels of train rows: run `dllm2rec label --splits train …`")
    table = pa.concat_tables(read_parquet(file) for file in files).sort_by("row_id")
    if len(table) != rows:
        raise StaleInputError(
            f"{labels} holds labels of {len(table)} of {rows} train rows, but the official code matches rows and "
            "labels by line: run `dllm2rec label` again until none fails"
        )
    kind: ScoreKind = table.schema.metadata[SCORE_KIND_KEY].decode()
    scores = distances(torch.tensor(table["scores"].to_pylist(), dtype=torch.float32), kind).numpy()
    np.savetxt(directory / RANKING, np.array(table["items"].to_pylist(), dtype=np.int64), fmt="%d")
    np.savetxt(directory / DISTANCES, scores, fmt="%.9g")
    torch.save(embeddings, directory / EMBEDDINGS)


def _read_numbers(file: Path, rows: int) -> np.ndarray:
    try:
        numbers = np.loadtxt(file, ndmin=2)
    except OSError as error:
        raise DataError(f"{file} cannot be read: check --teacher-files") from error
    except ValueError as error:
        raise DataError(f"{file} is not a table of numbers: {' '.join(str(error).split())[:200]}") from error
    if len(numbers) != rows:
        raise DataError(f"{file} has {len(numbers)} lines for {rows} train rows: it belongs to other data")
    if not np.isfinite(numbers).all():
        raise DataError(f"{file}, line {np.argwhere(~np.isfinite(numbers))[0][0] + 1}: a value is not finite")
    return numbers


def read_embeddings(file: Path, items: int) -> Tensor:
    """Embeddings [N, E] of ``items`` items; of a saved file torch reads tensors only, nothing that runs.

    Raises:
        DataError: the file is absent, damaged, or holds anything else.
    """
    try:
        embeddings = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{file} cannot be read: check --teacher-files") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DataError(f"{file} is not a saved tensor: {' '.join(str(error).split())[:120]}") from error
    if not isinstance(embeddings, Tensor) or embeddings.dim() != 2 or len(embeddings) != items:
        shape = list(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
        raise DataError(f"{file} holds {shape}, not embeddings of {items} items")
    return embeddings.float().contiguous()
