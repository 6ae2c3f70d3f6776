"""Yardsticks: what is had without a teacher or a student, which a recommender has to beat.

Each one is a sparse matrix [N, N] of what an item of the history says for every item. The score of item j is its share
of the train targets plus the sum over history items i of DECAY^(steps back) · weight[i, j], so popularity breaks ties
and answers alone where nothing else is known.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from scipy.sparse import csr_array, diags_array, vstack

from cluster.files import parquet_rows, read_parquet
from cluster.text import aligned
from data_prep.log import Floats, Ints
from data_prep.metrics import METRICS, gains
from data_prep.reading import shards
from data_prep.schema import ITEMS_FILE, Split

NAMES = ("popularity", "transitions", "itemknn")
MEASURED: tuple[Split, ...] = ("validation", "test")
RANKING = [name for name in METRICS if not name.startswith("mrr")]
SHOWN = ("hr@5", "hr@20", "ndcg@5", "ndcg@20")
DECAY = 0.5
SHRINK = 100.0
NEIGHBOURS = 100
WINDOW = 20
RANKED_ROWS = 10_000
KNN_ROWS = 500_000
KNN_BLOCK = 4_096
ROW_BLOCK = 256


class Sample(NamedTuple):
    """R rows: what stands in their histories, newest with weight 1, and their targets."""

    history_RN: csr_array
    target_R: Ints


def measure_yardsticks(dataset: Path) -> dict[str, float]:
    """HR and NDCG of every yardstick on validation and test, such as ``transitions_test_ndcg@20``.

    Full ranking over the catalogue, ties counted pessimistically, history items not filtered; of a split with more than
    RANKED_ROWS rows, so many are drawn with a fixed seed.
    """
    train_count_N = read_parquet(dataset / ITEMS_FILE, ["train_count"])["train_count"].to_numpy()
    share_N, n_items = train_count_N / train_count_N.sum(), len(train_count_N)
    weights = {
        "popularity": csr_array((n_items, n_items)),
        "transitions": transitions(dataset, n_items),
        "itemknn": neighbours(sample(dataset, "train", n_items, KNN_ROWS)),
    }
    metrics: dict[str, float] = {}
    for split in MEASURED:
        rows = sample(dataset, split, n_items, RANKED_ROWS)
        for name, weight_NN in weights.items():
            means = gains(torch.from_numpy(sparse_ranks(rows, weight_NN, share_N))).mean(0).tolist()
            found = dict(zip(METRICS, means, strict=True))
            metrics |= {f"{name}_{split}_{metric}": found[metric] for metric in RANKING}
    return metrics


def yardsticks(metrics: Mapping[str, float], split: Split) -> dict[str, dict[str, float]]:
    """The yardsticks' metrics on a split, from a data set's manifest; none if an earlier version made it."""
    return {
        name: {metric: metrics[f"{name}_{split}_{metric}"] for metric in RANKING}
        for name in NAMES
        if f"{name}_{split}_{RANKING[0]}" in metrics
    }


def yardstick_table(metrics: Mapping[str, float]) -> str:
    """The yardsticks as text."""
    rows = [
        [name, split, *(f"{found[metric]:.4f}" for metric in SHOWN)]
        for split in MEASURED
        for name, found in yardsticks(metrics, split).items()
    ]
    return aligned([["to beat", "split", *map(str.upper, SHOWN)], *rows], left=(0, 1))


def best_yardstick(metrics: Mapping[str, float], split: Split) -> str:
    """The yardstick with the highest NDCG@20, in words."""
    name, found = max(yardsticks(metrics, split).items(), key=lambda item: item[1]["ndcg@20"])
    return f"{name} HR@20 {found['hr@20']:.4f} NDCG@20 {found['ndcg@20']:.4f}"


def sample(dataset: Path, split: Split, n_items: int, most: int) -> Sample:
    """All rows of a split, or ``most`` of them drawn with a fixed seed; holds no more rows than these and a shard."""
    files = shards(dataset, split)
    ends = np.cumsum([parquet_rows(file) for file in files])
    chosen = np.arange(ends[-1])
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(0).choice(len(chosen), most, replace=False))
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    columns = ["history", "target"]
    taken = [
        read_parquet(file, columns).take(pa.array(part - end))
        for file, part, end in zip(files, parts, [0, *ends[:-1]], strict=True)
    ]
    rows = pa.concat_tables(taken).combine_chunks()
    history = rows["history"].combine_chunks()
    starts, items = history.offsets.to_numpy(), history.values.to_numpy()
    row = np.repeat(np.arange(len(rows)), np.diff(starts))
    back = starts[row + 1] - 1 - np.arange(len(items))
    kept = back < WINDOW
    weights = csr_array((DECAY ** back[kept], (row[kept], items[kept])), (len(rows), n_items))
    return Sample(weights, rows["target"].to_numpy())


def transitions(dataset: Path, n_items: int) -> csr_array:
    """Of the train rows whose newest history item is i, which share has target j: a first-order Markov chain [N, N].

    Shares are of one row more than there are, so that what was seen once counts less.
    """
    newest, target = [], []
    for shard in shards(dataset, "train"):
        rows = read_parquet(shard, ["history", "target"]).combine_chunks()
        history = rows["history"].combine_chunks()
        newest.append(history.values.to_numpy()[history.offsets.to_numpy()[1:] - 1])
        target.append(rows["target"].to_numpy())
    at = np.concatenate(newest), np.concatenate(target)
    count_NN = csr_array((np.ones(len(at[0])), at), shape=(n_items, n_items))
    return csr_array(diags_array(1 / (count_NN.sum(axis=1) + 1)) @ count_NN)


def neighbours(rows: Sample) -> csr_array:
    """ItemKNN [N, N]: the NEIGHBOURS largest cosines of an item, shrunk by SHRINK, between the rows that hold items.

    A row holds its history and its target.
    """
    history_RN, target_R = rows
    held_RN = history_RN + csr_array((np.ones(len(target_R)), (np.arange(len(target_R)), target_R)), history_RN.shape)
    held_RN.data[:] = 1
    held_NR, norm_N = csr_array(held_RN.T), np.sqrt(held_RN.sum(axis=0))
    blocks = []
    for start in range(0, len(norm_N), KNN_BLOCK):
        both = (held_NR[start : start + KNN_BLOCK] @ held_RN).tocoo()
        cosine = both.data / (norm_N[both.row + start] * norm_N[both.col] + SHRINK)
        cosine[both.row + start == both.col] = 0
        order = np.lexsort((-cosine, both.row))
        place = np.arange(len(order)) - np.searchsorted(both.row[order], both.row[order])
        kept = order[place < NEIGHBOURS]
        blocks.append(csr_array((cosine[kept], (both.row[kept], both.col[kept])), both.shape))
    return vstack(blocks, format="csr")


def sparse_ranks(rows: Sample, weight_NN: csr_array, share_N: Floats) -> Ints:
    """Rank [R] of each target from 1, an item with the same score before it; no [R, N] scores are made."""
    sorted_N = np.sort(share_N)
    ranks: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(rows.target_R), ROW_BLOCK):
        target_B = rows.target_R[start : start + ROW_BLOCK]
        added_BN = csr_array(rows.history_RN[start : start + ROW_BLOCK] @ weight_NN)
        row = np.repeat(np.arange(len(target_B)), np.diff(added_BN.indptr))
        share, score = share_N[added_BN.indices], share_N[added_BN.indices] + added_BN.data
        own_B = share_N[target_B]
        is_target = added_BN.indices == target_B[row]
        own_B[row[is_target]] = score[is_target]
        by_share_B = len(share_N) - np.searchsorted(sorted_N, own_B)
        lifted = (share < own_B[row]) & (score >= own_B[row])
        ranks.append(by_share_B + np.bincount(row[lifted], minlength=len(target_B)))
    return np.concatenate(ranks)
