import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from cluster.errors import OutputError
from tests.tune.records import record
from tune.journal import SEARCH_FILE, TRIALS_FILE, Journal


def test_a_record_comes_back_as_it_was(tmp_path):
    trial = record(3, 0.1, 0.2, point={"student": "sasrec", "lam": 0.25, "offset": True}, measures={"size": 10.0})
    journal = Journal(tmp_path, {"seed": "0"})
    journal.append(trial)
    journal.close()
    again = Journal(tmp_path, {"seed": "0"})
    assert again.records == {3: trial}


def test_a_line_that_a_kill_cut_off_is_taken_away(tmp_path):
    journal = Journal(tmp_path, {})
    journal.append(record(0, 0.1))
    journal.close()
    with (tmp_path / TRIALS_FILE).open("ab") as file:
        file.write(record(1, 0.2).model_dump_json().encode()[:40])
    again = Journal(tmp_path, {})
    assert set(again.records) == {0}
    again.append(record(1, 0.3))
    again.close()
    assert Journal(tmp_path, {}).records[1].best("ndcg@20") == 0.3


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("left", [0, 40])
def test_a_full_disk_is_one_line_and_loses_nothing_before(tmp_path, left):
    journal = Journal(tmp_path, {})
    journal.append(record(0, 0.1))
    before = (tmp_path / TRIALS_FILE).read_bytes()
    with room_for(len(before) + left):
        for _ in range(2):
            with pytest.raises(OutputError, match=r"cannot be written .*: make room, then the same command goes on"):
                journal.append(record(1, 0.2))
        assert (tmp_path / TRIALS_FILE).read_bytes() == before
    assert set(journal.records) == {0}
    journal.append(record(1, 0.3))
    journal.close()
    assert [trial.best("ndcg@20") for trial in Journal(tmp_path, {}).records.values()] == [0.1, 0.3]


def test_a_disk_that_was_full_leaves_nothing_to_be_written_on_closing(tmp_path):
    journal = Journal(tmp_path, {})
    with room_for(40), closing(journal), pytest.raises(OutputError, match="make room"):
        journal.append(record(0, 0.1))
    assert Journal(tmp_path, {}).records == {}


def test_another_search_is_refused_by_what_changed(tmp_path):
    Journal(tmp_path, {"space.lam": "0..1", "seed": "0"}).close()
    with pytest.raises(OutputError, match=r"another search: space\.lam was 0\.\.1, now it is 0\.\.2 \(and 1 more\)"):
        Journal(tmp_path, {"space.lam": "0..2", "seed": "0", "space.beta": "0..2"})


def test_one_process_works_on_it_at_a_time(tmp_path):
    journal = Journal(tmp_path, {})
    with pytest.raises(OutputError, match="another process is searching there"):
        Journal(tmp_path, {})
    journal.close()
    Journal(tmp_path, {})


@pytest.mark.parametrize("name", [SEARCH_FILE, TRIALS_FILE])
def test_a_damaged_file_is_named(tmp_path, name):
    Journal(tmp_path, {}).close()
    (tmp_path / name).write_text("{]\n")
    with pytest.raises(OutputError, match=f"{name} is damaged"):
        Journal(tmp_path, {})


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path / "file", {})
