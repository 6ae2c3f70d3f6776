"""Rows of (history, next item) from a sorted log."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_prep.config import RowRule
from data_prep.log import Ints, Log
from data_prep.schema import SEQUENCES

BIGREC_FIRST_POSITION = 10


@dataclass(frozen=True)
class Rows:
    """R rows in order of user and time; the row id is the row's place here, whatever the split.

    All three arrays are [R] places in the log: of the target, and of its user's first and last interaction.
    """

    target: Ints
    first: Ints
    last: Ints

    @property
    def position(self) -> Ints:
        """Position of the target in its user's whole sequence, from 0."""
        return self.target - self.first


def select_rows(log: Log, rule: RowRule) -> Rows:
    """Choose the positions of every user's sequence that become rows.

    ``every`` takes all positions with a history. ``bigrec`` takes positions 10 and later, and for a user with 10
    interactions or fewer only the last one (BIGRec's preparation, as in the DLLM2Rec protocol).
    """
    starts = np.flatnonzero(np.diff(log.user, prepend=-1))
    lengths = np.diff(starts, append=len(log.user))
    first = np.repeat(starts, lengths)
    last = np.repeat(starts + lengths - 1, lengths)
    place = np.arange(len(log.user))
    if rule == "every":
        chosen = place > first
    else:
        short = last - first < BIGREC_FIRST_POSITION
        chosen = np.where(short, (place == last) & (place > first), place - first >= BIGREC_FIRST_POSITION)
    return Rows(place[chosen], first[chosen], last[chosen])


def sequence_table(log: Log, rows: Rows, row_ids: Ints, max_history: int) -> pa.Table:
    """The rows ``row_ids`` as a table of schema SEQUENCES, histories cut to the ``max_history`` latest items."""
    target = rows.target[row_ids]
    position = rows.position[row_ids]
    lengths = np.minimum(position, max_history)
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(target - ends, lengths)
    history = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], ends]), pa.int32()), pa.array(log.item[places], pa.int32())
    )
    return pa.table(
        {
            "row_id": row_ids,
            "user_id": log.user_ids.take(pa.array(log.user[target])),
            "position": position.astype(np.int32),
            "history": history,
            "target": log.item[target].astype(np.int32),
            "timestamp": log.timestamp[target],
        },
        schema=SEQUENCES,
    )
