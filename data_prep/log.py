"""The log: checked interactions as arrays, sorted by user and time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from cluster.errors import DataError
from data_prep.catalogue import Catalogue
from data_prep.config import BadRows
from data_prep.readers.rawfiles import DROP_HINT, RawTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Log:
    """M interactions as parallel arrays; users are codes into ``user_ids``, items item indices."""

    user: Ints
    item: Ints
    timestamp: Floats
    user_ids: pa.Array


def build_log(raw: RawTable, catalogue: Catalogue, bad_rows: BadRows) -> tuple[Log, dict[str, int]]:
    """Check interactions, leave out those of items without title, and sort them by user and time.

    Users stand in the order of their first appearance; equal timestamps of a user keep the order of the file.

    Returns:
        The log and the counts of what was read, left out and kept.

    Raises:
        DataError: an id is empty, a timestamp is not a number >= 0, an interaction stands twice, a user has a single
            interaction (unless bad rows are dropped), or no user with two interactions is left.
    """
    rows = _frame(raw)
    counts = {"interactions_read": len(rows), "interactions_malformed": raw.malformed}
    for name, find in CHECKS.items():
        bad = find(rows).to_numpy()
        counts[name] = int(bad.sum())
        if counts[name] and bad_rows == "error":
            row = int(bad.argmax())
            fault = _fault(name, raw.columns.slice(row, 1).to_pylist()[0], counts[name])
            raise DataError(f"{raw.place(row)}: {fault}: {DROP_HINT}")
        rows = rows[~bad]
    user, user_ids = pd.factorize(rows["user_id"])
    item = pd.Index(catalogue.ids.to_pandas()).get_indexer(rows["item_id"])
    titled = item >= 0
    kept = titled & (np.bincount(user[titled], minlength=len(user_ids))[user] > 1)
    if not kept.any():
        raise DataError(f"{raw.place(0)}: no user from here on has two interactions with titled items: check item_id")
    users = np.unique(user[kept]).size
    counts |= {
        "items_without_title": len(catalogue.untitled.union(rows["item_id"][~titled])),
        "interactions_dropped": len(rows) - int(kept.sum()),
        "users_dropped": len(user_ids) - users,
        "interactions": int(kept.sum()),
        "users": users,
    }
    order = np.flatnonzero(kept)[np.lexsort((rows["timestamp"][kept], user[kept]))]
    timestamp = rows["timestamp"].to_numpy()
    return Log(user[order], item[order].astype(np.int64), timestamp[order], pa.array(user_ids, pa.string())), counts


def _frame(raw: RawTable) -> pd.DataFrame:
    """Ids as categories, empty ones missing; timestamps as numbers, missing where they are something else."""
    ids = {name: raw.columns[name].to_pandas().replace("", None).astype("category") for name in ("user_id", "item_id")}
    timestamp = pd.to_numeric(raw.columns["timestamp"].to_pandas(), errors="coerce")
    return pd.DataFrame(ids | {"timestamp": timestamp.to_numpy(np.float64, na_value=np.nan)})


CHECKS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "interactions_invalid": lambda rows: rows.isna().any(axis=1) | ~rows["timestamp"].between(0, np.finfo(float).max),
    "interactions_duplicate": lambda rows: rows.duplicated(),
    "users_with_one_interaction": lambda rows: ~rows["user_id"].duplicated(keep=False),
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
