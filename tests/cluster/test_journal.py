"""Calls that are kept: in order, removed once sent, whole after a kill."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.journal import Journal


def test_calls_come_back_in_order_until_they_are_sent(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "kept", "a store")
    with journal.pending() as calls:
        assert calls == []
    assert not (tmp_path / "kept").exists()
    for number in range(3):
        journal.append({"call": number})
    with pytest.raises(ValueError, match="away"), journal.pending() as calls:
        raise ValueError("away")
    with journal.pending() as calls:
        assert calls == [{"call": 0}, {"call": 1}, {"call": 2}]
    with journal.pending() as calls:
        assert calls == []


def test_every_store_has_a_journal_of_its_own(tmp_path: Path) -> None:
    Journal(tmp_path, "one").append({"call": 1})
    with Journal(tmp_path, "other").pending() as calls:
        assert calls == []


def test_a_line_half_written_is_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "a store")
    journal.append({"call": 1})
    with journal.file.open("a") as file:
        file.write('{"call": 2, "metr')
    journal.append({"call": 3})
    with journal.pending() as calls:
        assert calls == [{"call": 1}, {"call": 3}]


def test_calls_kept_from_several_sides_at_once_are_all_there(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: Journal(tmp_path, "a store").append({"call": number}), range(100)))
    with Journal(tmp_path, "a store").pending() as calls:
        assert sorted(call["call"] for call in calls) == list(range(100))
