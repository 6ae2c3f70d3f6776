"""What is had without a teacher or a student, counted by hand and against dense arithmetic."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from cluster.config import Config
from cluster.storage import Draft, write_manifest
from data_prep import yardsticks
from data_prep.schema import SEQUENCES
from data_prep.shards import write_items, write_shards
from data_prep.yardsticks import (
    DECAY,
    RANKING,
    SHRINK,
    best_yardstick,
    measure_yardsticks,
    neighbours,
    sample,
    sparse_ranks,
    transitions,
    yardstick_table,
)
from student_train.evaluation import evaluate, metric_means
from student_train.rows import read_rows

N = 12
Pairs = list[tuple[list[int], int]]


def write(path: Path, train: Pairs, held_out: Pairs | None = None, rows_per_shard: int = 7, n_items: int = N) -> Path:
    path.mkdir()
    counts = np.bincount([target for _, target in train], minlength=n_items)
    write_items(path, [f"i{at}" for at in range(n_items)], [f"Title {at}" for at in range(n_items)], counts)
    for split, pairs in (("train", train), ("validation", held_out or train), ("test", held_out or train)):
        histories, targets = zip(*pairs, strict=True)
        at = range(len(pairs))
        columns = [at, [f"u{n}" for n in at], [len(h) for h in histories], histories, targets, [0.0] * len(pairs)]
        table = pa.table(list(map(list, columns)), schema=SEQUENCES)
        write_shards(table, path / "sequences" / split, rows_per_shard)
    return path


def drawn(rows: int, seed: int, n_items: int = N) -> Pairs:
    """Skewed items, so that ranks differ; histories of 1 to 9 items with repeats."""
    random = np.random.default_rng(seed)

    def items(count: int) -> list[int]:
        return (n_items * random.random(count) ** 2).astype(int).tolist()

    return [(items(int(random.integers(1, 10))), items(1)[0]) for _ in range(rows)]


def test_transitions_are_shares_of_what_followed(tmp_path: Path) -> None:
    counted = write(tmp_path / "data", [([0], 1), ([3, 0], 1), ([3, 0], 2), ([0, 1], 2)])
    expected = np.zeros((N, N))
    expected[0, [1, 2]] = 2 / 4, 1 / 4
    expected[1, 2] = 1 / 2
    np.testing.assert_allclose(transitions(counted, N).toarray(), expected)


def test_history_items_count_half_as_much_a_step_further_back_and_twice_where_they_stand_twice(tmp_path: Path) -> None:
    rows = sample(write(tmp_path / "data", [([2, 0, 1], 3), ([5, 5], 4)]), "train", N, 10)
    expected = np.zeros((2, N))
    expected[0, [1, 0, 2]] = 1, 0.5, 0.25
    expected[1, 5] = 1.5
    np.testing.assert_allclose(rows.history_RN.toarray(), expected)
    assert rows.target_R.tolist() == [3, 4]


def test_items_far_back_are_left_out(tmp_path: Path) -> None:
    history = [0] * 5 + [1] * yardsticks.WINDOW
    rows = sample(write(tmp_path / "data", [(history, 3)]), "train", N, 10)
    assert rows.history_RN.indices.tolist() == [1]


def test_neighbours_are_shrunk_cosines_of_the_rows_that_hold_both(tmp_path: Path, monkeypatch) -> None:
    pairs = drawn(300, seed=1)
    found = neighbours(sample(write(tmp_path / "data", pairs), "train", N, 1000)).toarray()
    held = np.array([[item in {*history, target} for item in range(N)] for history, target in pairs], dtype=float)
    norm = np.sqrt(held.sum(0))
    cosine = held.T @ held / (np.outer(norm, norm) + SHRINK)
    np.fill_diagonal(cosine, 0)
    np.testing.assert_allclose(found, cosine)
    monkeypatch.setattr(yardsticks, "NEIGHBOURS", 3)
    monkeypatch.setattr(yardsticks, "KNN_BLOCK", 5)
    kept = neighbours(sample(tmp_path / "data", "train", N, 1000)).toarray()
    least = np.sort(cosine, axis=1)[:, -3]
    np.testing.assert_allclose(kept, np.where(cosine >= least[:, None], cosine, 0))


class Scores(nn.Module):
    """The same yardstick with dense scores, as a student would give them."""

    def __init__(self, weight_NN: np.ndarray, share_N: np.ndarray) -> None:
        super().__init__()
        self.weight_NN, self.share_N = torch.from_numpy(weight_NN), torch.from_numpy(share_N)

    def forward(self, history_BL: Tensor) -> Tensor:
        length = history_BL.shape[1]
        weight_L = DECAY ** torch.arange(length - 1, -1, -1).double()
        shown_BLN = nn.functional.one_hot(history_BL, N + 1)[:, :, :N].double()
        return (weight_L[:, None] * shown_BLN).sum(1) @ self.weight_NN + self.share_N


def test_metrics_are_those_that_a_student_with_the_same_scores_would_get(tmp_path: Path) -> None:
    train, held_out = drawn(200, seed=2), drawn(150, seed=3)
    path = write(tmp_path / "data", train, held_out)
    write_manifest(Draft(path), verb="prepare", config=Config())
    found = measure_yardsticks(path)
    share = np.bincount([target for _, target in train], minlength=N) / len(train)
    weights = {
        "popularity": np.zeros((N, N)),
        "transitions": transitions(path, N).toarray(),
        "itemknn": neighbours(sample(path, "train", N, 1000)).toarray(),
    }
    for split in ("validation", "test"):
        rows = read_rows(path, split, 9, N)
        for name, weight in weights.items():
            expected = metric_means(evaluate(Scores(weight, share), rows, torch.device("cpu")))
            for metric in RANKING:
                assert found[f"{name}_{split}_{metric}"] == pytest.approx(expected[metric]), (name, split, metric)


def test_an_item_with_the_targets_score_stands_before_it(tmp_path: Path) -> None:
    """Popularity alone: items 0 and 1 are level, items 3 and later are never a target."""
    path = write(tmp_path / "data", [([5], 0), ([5], 1), ([5], 0), ([5], 1), ([5], 2)], [([6], 0), ([6], 2), ([6], 3)])
    rows = sample(path, "test", N, 10)
    share = np.array([2, 2, 1] + [0] * (N - 3)) / 5
    nothing = transitions(path, N) * 0
    assert sparse_ranks(rows, nothing, share).tolist() == [2, 3, N]


def test_figures_do_not_depend_on_shards_or_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out = drawn(200, seed=4), drawn(90, seed=5)
    expected = measure_yardsticks(write(tmp_path / "one", train, held_out, rows_per_shard=1000))
    monkeypatch.setattr(yardsticks, "ROW_BLOCK", 7)
    assert measure_yardsticks(write(tmp_path / "many", train, held_out, rows_per_shard=3)) == pytest.approx(expected)


def test_a_large_split_is_measured_on_rows_drawn_with_a_fixed_seed(tmp_path: Path) -> None:
    pairs = drawn(500, seed=6)
    path = write(tmp_path / "data", pairs)
    every, some = sample(path, "test", N, 500), sample(path, "test", N, 60)
    assert (len(every.target_R), len(some.target_R)) == (500, 60)
    assert some.target_R.tolist() == sample(path, "test", N, 60).target_R.tolist()
    known = {(tuple(row), target) for row, target in zip(every.history_RN.toarray(), every.target_R, strict=True)}
    assert {(tuple(row), target) for row, target in zip(some.history_RN.toarray(), some.target_R, strict=True)} <= known
    assert len(set(some.target_R.tolist())) > 5


def test_the_table_and_the_best_in_words(tmp_path: Path) -> None:
    """Where the target follows from the newest item, transitions find it and popularity does not."""
    pairs = [([item], (item + 1) % 40) for item in range(40) for _ in range(3)]
    metrics = measure_yardsticks(write(tmp_path / "data", pairs, n_items=40))
    assert metrics["transitions_test_hr@1"] == 1.0
    assert metrics["popularity_test_hr@20"] == 0.0  # all are level
    assert best_yardstick(metrics, "test") == "transitions HR@20 1.0000 NDCG@20 1.0000"
    lines = yardstick_table(metrics).splitlines()
    assert lines[0].split() == ["to", "beat", "split", "HR@5", "HR@20", "NDCG@5", "NDCG@20"]
    assert lines[2].split() == ["transitions", "validation", *["1.0000"] * 4]
