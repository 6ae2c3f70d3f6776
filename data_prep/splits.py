"""Which split each row belongs to."""

from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import ConfigError, DataError
from data_prep.config import SplitRule
from data_prep.log import Floats, Ints
from data_prep.schema import SPLITS, Split
from data_prep.sequences import Rows

TRAIN, VALIDATION, TEST, GATE = range(4)  # places in NAMES
NAMES: tuple[Split, ...] = (*SPLITS, "gate")
Splits = npt.NDArray[np.int8]
MOST_GATE_ROWS = 1_000_000
"""They make the gains of two students sure to a few ten-thousandths; every student stores its ranks of all of them."""


def split_rows(rule: SplitRule, rows: Rows, timestamps: Floats, cut_points: tuple[float, float] | None) -> Splits:
    """The split [R] of every row, as a place in NAMES; none is of the gate.

    Args:
        rule: ``chronological``, ``timestamps`` (with cut points) or ``leave-one-out``.
        rows: the rows.
        timestamps: [R], of the targets.
        cut_points: train < first <= validation < second <= test.

    Raises:
        DataError: a split is left without rows.
    """
    if rule == "chronological":
        splits = chronological(timestamps)
    elif rule == "timestamps":
        splits = by_timestamps(timestamps, check_cut_points(cut_points))
    else:
        splits = leave_one_out(rows.target, rows.last)
    counts = np.bincount(splits, minlength=len(SPLITS))
    for name, count in zip(SPLITS, counts, strict=True):
        if not count:
            found = f"{timestamps.min():.10g} … {timestamps.max():.10g}" if timestamps.size else "none"
            raise DataError(
                f"split `{rule}` leaves {name} empty ({len(splits)} rows, target timestamps {found}): "
                "choose another --split or --cut-points, or give more data"
            )
    return splits


def chronological(timestamps: Floats) -> Splits:
    """All rows sorted by the target's timestamp (ties in row order), cut 8 : 1 : 1."""
    count = len(timestamps)
    splits = np.full(count, TEST, np.int8)
    order = np.argsort(timestamps, kind="stable")
    splits[order[: count * 9 // 10]] = VALIDATION
    splits[order[: count * 8 // 10]] = TRAIN
    return splits


def by_timestamps(timestamps: Floats, cut_points: tuple[float, float]) -> Splits:
    """Train before the first cut point, validation before the second, test from there on."""
    return np.digitize(timestamps, cut_points).astype(np.int8)


def leave_one_out(target: Ints, last: Ints) -> Splits:
    """Every user's last interaction is test, the one before validation, the rest train."""
    return (TEST - np.minimum(last - target, 2)).astype(np.int8)


def set_gate_aside(splits: Splits, user_R: Ints, user_ids: pa.Array, share: float, seed: int) -> Splits:
    """Move all validation rows of some users to the gate.

    A user is chosen by a hash of id and seed, so that more data leaves the choice as it is. Of two users or more at
    least one is chosen and one is not. Beyond MOST_GATE_ROWS no more users are chosen.

    Args:
        splits: [R], of every row.
        user_R: the user of every row, a place in ``user_ids``.
        user_ids: as in the raw data.
        share: of the validation users.
        seed: another one chooses other users.
    """
    is_validation = splits == VALIDATION
    users, rows = np.unique(user_R[is_validation], return_counts=True)
    if not share or len(users) < 2:
        return splits
    drawn = np.array([_uniform(f"{seed} {user}") for user in user_ids.take(pa.array(users)).to_pylist()])
    order = np.argsort(drawn)
    count = min((drawn < share).sum(), (rows[order].cumsum() <= MOST_GATE_ROWS).sum())
    chosen = users[order[: np.clip(count, 1, len(users) - 1)]]
    return np.where(is_validation & np.isin(user_R, chosen), GATE, splits).astype(np.int8)


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return float(int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48)


def check_cut_points(cut_points: tuple[float, float] | None) -> tuple[float, float]:
    """The two cut points.

    Raises:
        ConfigError: they are missing or out of order.
    """
    if cut_points is None:
        raise ConfigError("split `timestamps` needs --cut-points FIRST SECOND, in the unit of the data's timestamps")
    if not cut_points[0] < cut_points[1]:
        raise ConfigError(f"--cut-points {cut_points[0]:g} {cut_points[1]:g} are out of order: give the earlier first")
    return cut_points
