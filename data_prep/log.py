"""The log: checked interactions as arrays, sorted by user and time."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from data_prep.catalogue import Catalogue
from data_prep.config import BadRows
from data_prep.rawfiles import DROP_HINT, RawTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Log:
    """M interactions as parallel arrays; user and item are codes into the tables of ids."""

    user: Ints
    item: Ints
    timestamp: Floats
    user_ids: pa.Array
    item_ids: pa.Array

    def take(self, which: Mask | Ints) -> "Log":
        """The interactions of a mask or of an index."""
        return replace(self, user=self.user[which], item=self.item[which], timestamp=self.timestamp[which])

    @property
    def users(self) -> int:
        """Number of users with an interaction."""
        return np.unique(self.user).size


def build_log(raw: RawTable, catalogue: Catalogue, bad_rows: BadRows) -> tuple[Log, dict[str, int]]:
    """Check interactions, leave out those of items without title, and sort them by user and time.

    Users stand in the order of their first appearance; equal timestamps of a user keep the order of the file. Item
    codes are item indices.

    Returns:
        The log and the counts of what was read and left out.

    Raises:
        DataError: an id is empty, a timestamp is not a number >= 0, an interaction stands twice, a user has a single
            interaction (unless bad rows are dropped), or no user with two interactions is left.
    """
    log = _encode(raw)
    counts = {"interactions_read": len(log.user), "interactions_malformed": raw.malformed}
    for name, find in CHECKS.items():
        bad = find(log)
        counts[name] = int(bad.sum())
        if counts[name] and bad_rows == "error":
            row = int(bad.argmax())
            fault = _fault(name, raw.columns.slice(row, 1).to_pylist()[0], counts[name])
            raise DataError(f"{raw.place(row)}: {fault}: {DROP_HINT}")
        log = log.take(~bad)
    log, left_out = _keep_titled(log, catalogue)
    if not len(log.user):
        raise DataError(f"{raw.place(0)}: no user from here on has two interactions with titled items: check item_id")
    return log.take(np.lexsort((log.timestamp, log.user))), counts | left_out


def _encode(raw: RawTable) -> Log:
    user, user_ids = _codes(raw.columns["user_id"])
    item, item_ids = _codes(raw.columns["item_id"])
    timestamp = pd.to_numeric(raw.columns["timestamp"].to_pandas(), errors="coerce")
    return Log(user, item, timestamp.to_numpy(np.float64, na_value=np.nan), user_ids, item_ids)


def _codes(column: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """Codes in order of first appearance, -1 for an empty id, and the ids."""
    named = pc.if_else(pc.equal(column, ""), None, column)
    encoded = named.dictionary_encode().unify_dictionaries().combine_chunks()
    return pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int64), encoded.dictionary


def _invalid(log: Log) -> Mask:
    return (log.user < 0) | (log.item < 0) | ~np.isfinite(log.timestamp) | (log.timestamp < 0)


def _duplicates(log: Log) -> Mask:
    return pd.DataFrame({"user": log.user, "item": log.item, "at": log.timestamp}).duplicated().to_numpy()


def _single(log: Log) -> Mask:
    """Interactions of users who have no other one."""
    return np.bincount(log.user, minlength=1)[log.user] == 1


CHECKS: dict[str, Callable[[Log], Mask]] = {
    "interactions_invalid": _invalid,
    "interactions_duplicate": _duplicates,
    "users_with_one_interaction": _single,
}
"""What makes interactions bad, by the names of their counts, in the order in which they are left out."""


def _fault(name: str, row: dict[str, str | float | None], count: int) -> str:
    if name == "interactions_duplicate":
        at = "at the same timestamp as in an earlier row"
        return f"user {row['user_id']!r} has item {row['item_id']!r} {at} ({count} duplicate rows in all)"
    if name == "users_with_one_interaction":
        return f"user {row['user_id']!r} has a single interaction, which gives no history ({count} such users in all)"
    empty = next((column for column in ("user_id", "item_id") if not row[column]), None)
    return f"{empty} is empty" if empty else f"timestamp {str(row['timestamp'])!r} is not a number from 0 on"


def _keep_titled(log: Log, catalogue: Catalogue) -> tuple[Log, dict[str, int]]:
    """Turn item codes into item indices; leave out untitled items, then users left with one interaction."""
    index = pc.fill_null(pc.index_in(log.item_ids, value_set=catalogue.ids), -1).to_numpy().astype(np.int64)
    untitled = log.item_ids.take(pa.array(np.unique(log.item[index[log.item] < 0]))).to_pylist()
    titled = replace(log, item=index[log.item], item_ids=catalogue.ids).take(index[log.item] >= 0)
    kept = titled.take(~_single(titled))
    return kept, {
        "items_without_title": len(catalogue.untitled.union(untitled)),
        "interactions_dropped": len(log.user) - len(kept.user),
        "users_dropped": log.users - kept.users,
    }
