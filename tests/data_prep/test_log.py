"""The checked, sorted log."""

import pytest

from cluster.errors import DataError
from data_prep.catalogue import build_catalogue
from data_prep.log import build_log, interacted

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
    assert (counts["items_unmatched"], counts["interactions_unmatched"]) == (2, 2)
    assert counts["interactions_dropped"] == 3  # two of untitled items, one of the user left with one
    assert counts["users_dropped"] == 1
    assert counts["users"] == 2


def test_nothing_left(raw, catalogue):
    with pytest.raises(DataError, match="no user from here on has two interactions with titled items"):
        build_log(raw(COLUMNS, [("u", "x", "1"), ("u", "a", "2")]), catalogue, "error")


def test_many_items_that_the_items_file_lacks_are_said_and_most_refused(raw, catalogue, capsys):
    rows = [(f"u{user}", f"0{item}", "1") for user in range(4) for item in "ab"]
    wanted = [(user, item[1:], time) for user, item, time in rows]
    with pytest.raises(DataError, match=r"8 of 8 .* such as '0a'; ids there are such as 'c': write both"):
        build_log(raw(COLUMNS, rows), catalogue, "error")
    _, counts = build_log(raw(COLUMNS, rows[:2] + wanted[2:]), catalogue, "error")
    assert (counts["interactions_unmatched"], counts["interactions"]) == (2, 6)
    assert "warning: 2 of 8 interactions are with items that are not in the items file" in capsys.readouterr().out
    build_log(raw(COLUMNS, wanted), catalogue, "error")
    assert capsys.readouterr().out == ""


def test_blanks_around_ids_do_not_count(raw):
    catalogue = build_catalogue(raw(["item_id", "title"], [("a ", "A"), ("\tb", "B")]), 10, "error")
    log, _ = build_log(raw(COLUMNS, [(" u", "a", "1"), ("u ", " b", "2")]), catalogue, "error")
    assert (log.item.tolist(), log.user_ids.to_pylist()) == ([0, 1], ["u"])


def test_dates_are_seconds_where_no_time_is_a_number(raw, catalogue):
    dates = ["1970-01-01T00:00:01.250Z", "1970-01-02", "1970-01-01 01:00:00+01:00"]
    log, _ = build_log(raw(COLUMNS, [("u", "a", date) for date in dates]), catalogue, "error")
    assert log.timestamp.tolist() == [0, 1.25, 86400]
    mixed = raw(COLUMNS, [*GOOD, ("u", "a", "1970-01-02")])
    with pytest.raises(DataError, match="timestamp '1970-01-02' is not a number"):
        build_log(mixed, catalogue, "error")
    assert build_log(mixed, catalogue, "drop")[1]["interactions_invalid"] == 1


def test_a_core_leaves_out_until_nothing_changes(raw, catalogue):
    rows = [("u", "a"), ("u", "b"), ("v", "a"), ("v", "b"), ("w", "a"), ("w", "c")]
    log, counts = build_log(raw(COLUMNS, [(*row, "1") for row in rows]), catalogue, "error", 2, 2)
    assert rows_of(log) == [("u", "a", 1), ("u", "b", 1), ("v", "a", 1), ("v", "b", 1)]  # without c, w has one left
    assert counts["users_dropped"] == 1
    fewer, small = interacted(catalogue, log)
    assert (fewer.ids.to_pylist(), small.item.tolist()) == (["b", "a"], [1, 0, 1, 0])
    with pytest.raises(DataError, match=r"no interaction is left where .* lower --min-interactions-per-user"):
        build_log(raw(COLUMNS, [(*row, "1") for row in rows]), catalogue, "error", 2, 4)
