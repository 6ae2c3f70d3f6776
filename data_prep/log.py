"""The log: checked interactions as arrays, sorted by user and time."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from data_prep.catalogue import Catalogue
from data_prep.config import BadRows
from data_prep.rawfiles import DROP_HINT, RawTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

NUMBER = r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


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
    checks = (_invalid, _duplicates, _single_users)
    for check in checks:
        bad, name, describe = check(log, raw)
        if bad.any() and bad_rows == "error":
            row = int(np.flatnonzero(bad)[0])
            raise DataError(f"{raw.place(row)}: {describe(row)}: {DROP_HINT}")
        counts[name] = int(bad.sum())
        log = log.take(~bad)
    log, left_out = _keep_titled(log, catalogue)
    if not len(log.user):
        raise DataError(f"{raw.place(0)}: no user from here on has two interactions with titled items: check item_id")
    return log.take(np.lexsort((log.timestamp, log.user))), counts | left_out


def _encode(raw: RawTable) -> Log:
    user, user_ids = _codes(raw.columns["user_id"])
    item, item_ids = _codes(raw.columns["item_id"])
    return Log(user, item, _numbers(raw.columns["timestamp"]), user_ids, item_ids)


def _codes(column: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """Codes in order of first appearance, -1 for an empty id, and the ids."""
    encoded = column.dictionary_encode().unify_dictionaries()
    ids = encoded.chunk(0).dictionary
    codes = np.concatenate([pc.fill_null(chunk.indices, -1).to_numpy() for chunk in encoded.chunks]).astype(np.int64)
    blank = pc.index(ids, "").as_py()
    return np.where(codes == blank, -1, codes) if blank >= 0 else codes, ids


def _numbers(column: pa.ChunkedArray) -> Floats:
    """The column as numbers, NaN where it holds something else."""
    try:
        return column.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(column)
        numeric = pc.if_else(pc.match_substring_regex(trimmed, NUMBER), trimmed, None)
        return numeric.cast(pa.float64()).to_numpy()


Check = tuple[Mask, str, Callable[[int], str]]


def _invalid(log: Log, raw: RawTable) -> Check:
    bad = (log.user < 0) | (log.item < 0) | ~np.isfinite(log.timestamp) | (log.timestamp < 0)

    def describe(row: int) -> str:
        values = {name: raw.columns[name][row].as_py() for name in ("user_id", "item_id", "timestamp")}
        for name in ("user_id", "item_id"):
            if not values[name]:
                return f"{name} is empty"
        return f"timestamp {str(values['timestamp'])!r} is not a number from 0 on"

    return bad, "interactions_invalid", describe


def _duplicates(log: Log, raw: RawTable) -> Check:
    order = np.lexsort((log.timestamp, log.item, log.user))  # stable: of equal ones the first in the file stays first
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for values in (log.user, log.item, log.timestamp):
        same &= values[order[1:]] == values[order[:-1]]
    bad = np.zeros(len(order), dtype=bool)
    bad[order[1:][same]] = True
    return (
        bad,
        "interactions_duplicate",
        lambda row: (
            f"user {log.user_ids[log.user[row]].as_py()!r} has item {log.item_ids[log.item[row]].as_py()!r} at the "
            f"same timestamp as in an earlier row ({int(bad.sum())} duplicate rows in all)"
        ),
    )


def _single_users(log: Log, raw: RawTable) -> Check:
    bad = np.bincount(log.user, minlength=1)[log.user] == 1
    return (
        bad,
        "users_with_one_interaction",
        lambda row: (
            f"user {log.user_ids[log.user[row]].as_py()!r} has a single interaction, which gives no history "
            f"({int(bad.sum())} such users in all)"
        ),
    )


def _keep_titled(log: Log, catalogue: Catalogue) -> tuple[Log, dict[str, int]]:
    """Turn item codes into item indices; leave out untitled items, then users left with one interaction."""
    index = pc.fill_null(pc.index_in(log.item_ids, value_set=catalogue.ids), -1).to_numpy().astype(np.int64)
    untitled = log.item_ids.take(pa.array(np.unique(log.item[index[log.item] < 0]))).to_pylist()
    mapped = replace(log, item=index[log.item], item_ids=catalogue.ids)
    titled = mapped.take(mapped.item >= 0)
    kept = titled.take(np.bincount(titled.user, minlength=1)[titled.user] > 1)
    return kept, {
        "items_without_title": len(catalogue.untitled.union(untitled)),
        "interactions_dropped": len(log.user) - len(kept.user),
        "users_dropped": log.users - kept.users,
    }
