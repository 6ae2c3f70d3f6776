"""The log: checked interactions as arrays, sorted by user and time."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cluster.console import say
from cluster.errors import DataError
from data_prep.catalogue import Catalogue
from data_prep.config import BadRows
from data_prep.readers.rawfiles import DROP_HINT, RawTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
FEW_UNMATCHED, MOST_UNMATCHED = 0.05, 0.5
"""Shares of interactions with items that the items file does not have: more than a few is said, more is refused."""


@dataclass(frozen=True)
class Log:
    """M interactions as parallel arrays; users are codes into ``user_ids``, items item indices."""

    user: Ints
    item: Ints
    timestamp: Floats
    user_ids: pa.Array


def build_log(
    raw: RawTable, catalogue: Catalogue, bad_rows: BadRows, per_user: int = 2, per_item: int = 1
) -> tuple[Log, dict[str, int]]:
    """Check interactions, leave out those of items without title, and sort them by user and time.

    Users stand in the order of their first appearance; equal timestamps of a user keep the order of the file.

    Args:
        raw: the log as read.
        catalogue: the items with a title.
        bad_rows: whether a bad row stops or is left out.
        per_user: fewest interactions that a user is kept with.
        per_item: fewest interactions that an item's are kept with; both are applied until nothing changes (a k-core).

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
    unmatched = rows["item_id"][~titled & ~rows["item_id"].isin(catalogue.untitled).to_numpy()]
    _check_matched(unmatched, len(rows), catalogue)
    kept = _core(user, item, titled, per_user, per_item)
    if not kept.any() and (per_user, per_item) != (2, 1):
        raise DataError(
            f"no interaction is left where every user has {per_user} and every item {per_item} of them: lower "
            "--min-interactions-per-user or --min-interactions-per-item"
        )
    if not kept.any():
        raise DataError(f"{raw.place(0)}: no user from here on has two interactions with titled items: check item_id")
    users = np.unique(user[kept]).size
    counts |= {
        "items_without_title": len(catalogue.untitled),
        "items_unmatched": unmatched.nunique(),
        "interactions_unmatched": len(unmatched),
        "interactions_dropped": len(rows) - int(kept.sum()),
        "users_dropped": len(user_ids) - users,
        "interactions": int(kept.sum()),
        "users": users,
    }
    order = np.flatnonzero(kept)[np.lexsort((rows["timestamp"][kept], user[kept]))]
    timestamp = rows["timestamp"].to_numpy()
    return Log(user[order], item[order].astype(np.int64), timestamp[order], pa.array(user_ids, pa.string())), counts


def interacted(catalogue: Catalogue, log: Log) -> tuple[Catalogue, Log]:
    """Both with the items that the log names, and no others."""
    chosen, item = np.unique(log.item, return_inverse=True)
    rows = pa.array(chosen)
    fewer = replace(catalogue, ids=catalogue.ids.take(rows), titles=catalogue.titles.take(rows))
    return fewer, replace(log, item=item.astype(np.int64))


def _core(user: Ints, item: Ints, kept: Mask, per_user: int, per_item: int) -> Mask:
    """Which interactions stay when users and items with too few are left out, again and again."""
    before = -1
    while before != (before := int(kept.sum())):
        kept = kept & (np.bincount(user[kept], minlength=user.max() + 1)[user] >= per_user)
        if per_item > 1:
            kept = kept & (np.bincount(item[kept], minlength=item.max() + 1)[item] >= per_item)
    return kept


def _check_matched(unmatched: pd.Series, interactions: int, catalogue: Catalogue) -> None:
    """Say or refuse that interactions are with items that the items file does not have; a few are usual.

    Raises:
        DataError: more than half of all.
    """
    share = len(unmatched) / max(interactions, 1)
    if share <= FEW_UNMATCHED:
        return
    found = (
        f"{len(unmatched):,} of {interactions:,} interactions are with items that are not in the items file, such as "
        f"{unmatched.iloc[0]!r}; ids there are such as {catalogue.ids[0].as_py()!r}"
    )
    if share > MOST_UNMATCHED:
        raise DataError(f"{found}: write both alike")
    say(f"prepare: warning: {found}")


def _frame(raw: RawTable) -> pd.DataFrame:
    """Ids as categories, empty ones missing; timestamps as numbers, missing where they are something else."""
    ids = {
        name: pc.utf8_trim_whitespace(raw.columns[name]).to_pandas().replace("", None).astype("category")
        for name in ("user_id", "item_id")
    }
    return pd.DataFrame(ids | {"timestamp": _seconds(raw.columns["timestamp"].to_pandas())})


def _seconds(times: pd.Series) -> Floats:
    """Times as numbers; where none is one, ISO 8601 dates as seconds since 1970; what cannot be read is missing."""
    numbers = pd.to_numeric(times, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    if not np.isnan(numbers).all():
        return numbers
    dates = pd.to_datetime(times.astype(str).str.strip(), format="ISO8601", utc=True, errors="coerce")
    seconds = (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return np.asarray(seconds, np.float64)


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
