"""The checked, sorted log."""

import pytest

from cluster.errors import DataError
from data_prep.catalogue import build_catalogue
from data_prep.log import build_log

COLUMNS = ["user_id", "item_id", "timestamp"]
GOOD = [("u", "a", "5"), ("v", "b", "1"), ("u", "b", "3"), ("v", "a", "1"), ("u", "c", "3")]


@pytest.fixture
def catalogue(raw):
    return build_catalogue(raw(["item_id", "title"], [("c", "C"), ("b", "B"), ("a", "A")]), 10, "error")


def rows_of(log):
    users, items = log.user_ids.to_pylist(), "cba"  # the catalogue of these tests
    return [(users[u], items[i], t) for u, i, t in zip(log.user, log.item, log.timestamp, strict=True)]


def test_sorted_by_user_and_time_with_ties_in_file_order(raw, catalogue):
    log, counts = build_log(raw(COLUMNS, GOOD), catalogue, "error")
    assert rows_of(log) == [("u", "b", 3), ("u", "c", 3), ("u", "a", 5), ("v", "b", 1), ("v", "a", 1)]
    assert log.item.tolist() == [1, 0, 2, 1, 2]
    assert counts["interactions_read"] == 5
    assert counts["interactions_dropped"] == counts["users_dropped"] == 0


@pytest.mark.parametrize(
    ("row", "fault", "name"),
    [
        (("u", "a", "NaN"), "timestamp 'NaN' is not a number", "interactions_invalid"),
        (("u", "a", "-1"), "timestamp '-1' is not a number", "interactions_invalid"),
        (("u", "a", "2014-01-01"), "timestamp '2014-01-01' is not a number", "interactions_invalid"),
        (("u", "a", "inf"), "timestamp 'inf' is not a number", "interactions_invalid"),
        (("u", "a", ""), "timestamp '' is not a number", "interactions_invalid"),
        (("u", "a", None), "timestamp 'None' is not a number", "interactions_invalid"),
        (("", "a", "1"), "user_id is empty", "interactions_invalid"),
        (("u", "", "1"), "item_id is empty", "interactions_invalid"),
        ((None, "a", "1"), "user_id is empty", "interactions_invalid"),
        (("u", "a", "5.0"), "user 'u' has item 'a' at the same timestamp", "interactions_duplicate"),
        (("w", "a", "5"), "user 'w' has a single interaction", "users_with_one_interaction"),
    ],
)
def test_bad_row_stops_or_is_dropped(raw, catalogue, row, fault, name):
    bad = raw(COLUMNS, [*GOOD, row])
    with pytest.raises(DataError, match=rf"raw\.csv, line 7: {fault}.*: fix it or add --bad-rows drop"):
        build_log(bad, catalogue, "error")
    log, counts = build_log(bad, catalogue, "drop")
    assert rows_of(log) == rows_of(build_log(raw(COLUMNS, GOOD), catalogue, "error")[0])
    assert counts[name] == 1


def test_same_item_again_later_is_no_duplicate(raw, catalogue):
    log, _ = build_log(raw(COLUMNS, [*GOOD, ("u", "a", "6")]), catalogue, "error")
    assert len(log.user) == 6


def test_items_without_title_go_with_their_interactions(raw, catalogue):
    log, counts = build_log(
        raw(COLUMNS, [*GOOD, ("w", "a", "1"), ("w", "x", "2"), ("u", "y", "9")]), catalogue, "error"
    )
    assert rows_of(log) == rows_of(build_log(raw(COLUMNS, GOOD), catalogue, "error")[0])
    assert counts["items_without_title"] == 2
    assert counts["interactions_dropped"] == 3  # two of untitled items, one of the user left with one
    assert counts["users_dropped"] == 1
    assert counts["users"] == 2


def test_nothing_left(raw, catalogue):
    with pytest.raises(DataError, match="no user from here on has two interactions with titled items"):
        build_log(raw(COLUMNS, [("u", "x", "1"), ("u", "y", "2")]), catalogue, "error")
