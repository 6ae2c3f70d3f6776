"""The gate against theory and against resampling row by row."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.errors import ModelError
from data_prep.metrics import METRICS, gains
from data_prep.schema import RANKS
from model_registry.gate import GateRows, least_gain


def gate_rows(ndcg: np.ndarray) -> GateRows:
    return GateRows(np.arange(len(ndcg)), np.arange(len(ndcg)), ndcg)


def random_gains(rows: int, seed: int) -> np.ndarray:
    rank = np.random.default_rng(seed).integers(1, 60, size=rows)
    return np.where(rank <= 20, 1 / np.log2(rank + 1), 0)


def test_the_figures_are_those_of_the_evaluation(tmp_path: Path) -> None:
    ranks = np.array([3, 1, 20, 21, 400], dtype=np.int32)
    pq.write_table(pa.table([[9, 8, 7, 6, 5], [2, 2, 1, 1, 0], ranks], schema=RANKS), tmp_path / "ranks.parquet")
    read = GateRows.read(tmp_path / "ranks.parquet")
    expected = gains(torch.from_numpy(ranks))[:, METRICS.index("ndcg@20")]
    assert read.row_id.tolist() == [5, 6, 7, 8, 9]
    assert read.user.tolist() == [0, 1, 1, 2, 2]
    assert read.ndcg.tolist() == pytest.approx(expected.flip(0).tolist())
    assert read.mean == pytest.approx(expected.mean().item())


@pytest.mark.parametrize("paired", [True, False])
def test_the_bound_is_that_of_resampled_rows(paired: bool) -> None:
    old = random_gains(400, 0)
    new = np.where(np.arange(400) % 3 == 0, random_gains(400, 1), old)
    generator, draws = np.random.default_rng(5), []
    for _ in range(4000):
        first, second = generator.integers(400, size=(2, 400))
        draws.append(new[first].mean() - old[first if paired else second].mean())
    expected = np.quantile(draws, 0.05)
    assert least_gain(gate_rows(new), gate_rows(old), 0.95, paired) == pytest.approx(expected, abs=0.15 * np.std(draws))


def test_pairs_find_a_small_gain_that_separate_draws_do_not() -> None:
    old = random_gains(500, 0)
    new = old.copy()
    new[:12] = 1.0
    assert least_gain(gate_rows(new), gate_rows(old), 0.95) > 0
    assert least_gain(gate_rows(new), gate_rows(old), 0.95, paired=False) < 0


def test_more_confidence_promises_less_and_equals_gain_nothing() -> None:
    old, new = random_gains(300, 0), random_gains(300, 1)
    bounds = [least_gain(gate_rows(new), gate_rows(old), confidence) for confidence in (0.6, 0.9, 0.99)]
    assert bounds == sorted(bounds, reverse=True)
    assert least_gain(gate_rows(old), gate_rows(old), 0.95) == 0


def test_other_rows_cannot_be_paired() -> None:
    ndcg = random_gains(10, 0)
    with pytest.raises(ModelError, match="different gate rows"):
        least_gain(GateRows(np.arange(1, 11), np.arange(10), ndcg), gate_rows(ndcg), 0.95)


def passes(selection: int, gate: int, candidates: int, generator: np.random.Generator) -> tuple[bool, bool]:
    """Whether the best of equal candidates passes the gate: on the users that it was chosen by, and on others.

    Users have up to dozens of rows, and each student serves some users better than others.
    """
    user = np.repeat(np.arange(selection + gate), generator.geometric(0.1, size=selection + gate))
    served = generator.uniform(0, 0.6, size=(candidates + 1, selection + gate))[:, user]
    ndcg = (generator.uniform(size=served.shape) < served) / np.log2(generator.integers(2, 22, size=served.shape))
    chosen_by = user < selection
    best = 1 + ndcg[1:, chosen_by].mean(1).argmax()
    row_id = np.arange(len(user))
    return tuple(
        least_gain(*(GateRows(row_id[part], user[part], ndcg[one, part]) for one in (best, 0)), 0.95) > 0
        for part in (chosen_by, ~chosen_by)
    )


def test_the_best_of_many_equal_students_passes_no_more_often_than_any_one() -> None:
    generator, times = np.random.default_rng(0), 500
    on_its_own_rows, on_gate_rows = np.mean([passes(160, 40, 100, generator) for _ in range(times)], axis=0)
    assert on_its_own_rows > 0.5
    assert on_gate_rows < 0.05 + 2 * np.sqrt(0.05 * 0.95 / times)


def test_one_user_is_no_sample() -> None:
    rows, ndcg = np.arange(50), random_gains(50, 0)
    alone = np.zeros(50, dtype=np.int32)
    assert least_gain(GateRows(rows, alone, ndcg + 1), GateRows(rows, alone, ndcg), 0.95) == -np.inf
