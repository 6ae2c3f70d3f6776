"""Whether one student is surely better than another: a bootstrap of the difference in NDCG@20 on gate rows.

No early stopping, search or choice has seen these rows: on rows that have, the best of many equal students looks surely
better than any one of them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.errors import ModelError
from cluster.files import read_parquet

CUTOFF = 20
REPLICATES = 10_000


@dataclass(frozen=True)
class GateRows:
    """NDCG@20 of every gate row [S], in the order of ``row_id`` [S]."""

    row_id: NDArray[np.int64]
    ndcg: NDArray[np.float64]

    @classmethod
    def read(cls, file: Path) -> "GateRows":
        """From the ranks of a student directory (schema RANKS).

        Raises:
            ModelError: the file is damaged.
        """
        try:
            table = read_parquet(file).sort_by("row_id")
            row_id, rank = (table[name].to_numpy() for name in ("row_id", "rank"))
        except (KeyError, pa.ArrowException) as error:
            raise ModelError(f"{file} is damaged: train the student again") from error
        return cls(row_id, np.where(rank <= CUTOFF, 1 / np.log2(rank + 1.0), 0.0))

    @property
    def mean(self) -> float:
        """NDCG@20."""
        return float(self.ndcg.mean())


def least_gain(candidate: GateRows, champion: GateRows, confidence: float, paired: bool = True) -> float:
    """Lower end of the one-sided bootstrap interval of the candidate's gain in mean NDCG@20.

    Paired, rows are drawn together for both (Efron & Tibshirani 1993, chapter 8), so that what is hard for both cancels
    out; otherwise each student's rows are drawn by themselves, as for different data sets.

    Raises:
        ModelError: paired, and the rows differ.
    """
    generator = np.random.default_rng(0)
    if not paired:
        draws = _means(candidate.ndcg, generator) - _means(champion.ndcg, generator)
    elif np.array_equal(candidate.row_id, champion.row_id):
        draws = _means(candidate.ndcg - champion.ndcg, generator)
    else:
        raise ModelError("the two versions hold the ranks of different gate rows: train both on the same data set")
    return float(np.quantile(draws, 1 - confidence))


def _means(values_S: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Means of REPLICATES resamples of the rows.

    Ranks up to the cutoff leave few distinct values; drawing how often each occurs costs the same for any row count.
    """
    distinct, counts = np.unique(values_S, return_counts=True)
    drawn = generator.multinomial(len(values_S), counts / len(values_S), size=REPLICATES)
    means: NDArray[np.float64] = drawn @ distinct / len(values_S)
    return means
