"""Whether one student is surely better than another: an interval of the difference in NDCG@20 on gate rows.

No early stopping, search or choice has seen these rows: on rows that have, the best of many equal students looks surely
better than any one of them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import t

from cluster.errors import ModelError
from cluster.files import read_parquet

CUTOFF = 20


@dataclass(frozen=True)
class GateRows:
    """NDCG@20 of every gate row [S], in the order of ``row_id`` [S]."""

    row_id: NDArray[np.int64]
    user: NDArray[np.int32]
    """Rows of one user have the same number [S]."""
    ndcg: NDArray[np.float64]

    @classmethod
    def read(cls, file: Path) -> "GateRows":
        """From the ranks of a student directory (schema RANKS).

        Raises:
            ModelError: the file is damaged.
        """
        try:
            table = read_parquet(file).sort_by("row_id")
            row_id, user, rank = (table[name].to_numpy() for name in ("row_id", "user", "rank"))
        except (KeyError, pa.ArrowException) as error:
            raise ModelError(f"{file} is damaged: train the student again") from error
        return cls(row_id, user, np.where(rank <= CUTOFF, 1 / np.log2(rank + 1.0), 0.0))

    @property
    def mean(self) -> float:
        """NDCG@20."""
        return float(self.ndcg.mean())


def least_gain(candidate: GateRows, champion: GateRows, confidence: float, paired: bool = True) -> float:
    """Lower end of the one-sided interval of the candidate's gain in mean NDCG@20.

    Rows of one user are alike, so users are what is drawn (Efron & Tibshirani 1993, chapter 11: the jackknife, over
    users), and Student's t has a degree of freedom less than there are users. Paired, the gains of the same rows count,
    so that what is hard for both cancels out.

    Raises:
        ModelError: paired, and the rows differ.
    """
    if not paired:
        parts = [(candidate.ndcg, candidate.user), (champion.ndcg, champion.user)]
    elif np.array_equal(candidate.row_id, champion.row_id):
        parts = [(candidate.ndcg - champion.ndcg, candidate.user)]
    else:
        raise ModelError("the two versions hold the ranks of different gate rows: train both on the same data set")
    users = min(len(np.unique(user_S)) for _, user_S in parts)
    if users < 2:
        return -np.inf
    error = np.sqrt(sum(_variance(values_S, user_S) for values_S, user_S in parts))
    return float(candidate.mean - champion.mean - t.ppf(confidence, users - 1) * error)


def _variance(values_S: NDArray[np.float64], user_S: NDArray[np.int32]) -> float:
    """Of the mean of values, if users with their rows are drawn: the jackknife, which leaves out a user at a time."""
    users, place_S = np.unique(user_S, return_inverse=True)
    sum_U, count_U = np.bincount(place_S, weights=values_S), np.bincount(place_S)
    without_U = (sum_U.sum() - sum_U) / (count_U.sum() - count_U)
    return float((len(users) - 1) / len(users) * np.square(without_U - values_S.mean()).sum())
