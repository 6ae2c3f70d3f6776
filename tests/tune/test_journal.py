from contextlib import closing

import pytest

from cluster.errors import OutputError
from tests.tune.records import history, record, room_for
from tune.journal import TRIALS_FILE, Journal, Progress, read_journal


def opened(tmp_path, **about: str) -> Journal:
    return Journal(tmp_path, "tune", about)


def test_a_record_comes_back_as_it_was(tmp_path):
    point = {"model.name": "sasrec", "lam": 0.25, "offset": True}
    trial = record(3, 0.1, 0.2, point=point, measures={"size": 10.0}, checkpoint="s3://bucket/3")
    with closing(opened(tmp_path, seed="0")) as journal:
        journal.append(trial)
        journal.note(run="abc")
    with closing(opened(tmp_path, seed="0")) as again:
        assert again.records == {3: trial}
        assert again.notes["run"] == "abc"


def test_the_newest_state_of_a_trial_counts(tmp_path):
    with closing(opened(tmp_path)) as journal:
        for state in ("running", "running", "stopped early"):
            journal.append(record(0, 0.1, state=state))
        journal.append(record(1, state="running"))
    with closing(opened(tmp_path)) as again:
        assert [trial.number for trial in again.ended] == [0]
        assert [trial.number for trial in again.open] == [1]


def test_a_line_that_a_kill_cut_off_is_taken_away(tmp_path):
    with closing(opened(tmp_path)) as journal:
        journal.append(record(0, 0.1))
    with (tmp_path / TRIALS_FILE).open("ab") as file:
        file.write(record(1, 0.2).model_dump_json().encode()[:40])
    assert [trial.number for trial in read_journal(tmp_path)[1]] == [0]
    with closing(opened(tmp_path)) as again:
        assert set(again.records) == {0}
        again.append(record(1, 0.3))
    assert [trial.best("ndcg@20") for trial in read_journal(tmp_path)[1]] == [0.1, 0.3]


@pytest.mark.parametrize("left", [0, 40])
def test_a_full_disk_is_one_line_and_loses_nothing_before(tmp_path, left):
    journal = opened(tmp_path)
    journal.append(record(0, 0.1))
    before = (tmp_path / TRIALS_FILE).read_bytes()
    with room_for(len(before) + left):
        for _ in range(2):
            with pytest.raises(OutputError, match=r"cannot be written .*: make room, then the same command resumes"):
                journal.append(record(1, 0.2))
        assert (tmp_path / TRIALS_FILE).read_bytes() == before
    assert set(journal.records) == {0}
    journal.append(record(1, 0.3))
    journal.close()
    assert len(read_journal(tmp_path)[1]) == 2


def test_another_search_is_refused_by_what_changed(tmp_path):
    opened(tmp_path, space="0..1", seed="0").close()
    with pytest.raises(OutputError, match=r"another search: space was 0\.\.1, now it is 0\.\.2 \(and 1 more\)"):
        opened(tmp_path, space="0..2", seed="0", beta="0..2")
    with pytest.raises(OutputError, match="holds a `tune`"):
        Journal(tmp_path, "compare", {})


def test_overwriting_begins_in_an_emptied_directory(tmp_path):
    with closing(opened(tmp_path, seed="0")) as journal:
        journal.append(record(0, 0.1))
    (tmp_path / "student").mkdir()
    with closing(Journal(tmp_path, "tune", {"seed": "1"}, again=True)) as again:
        assert again.records == {}
    assert [path.name for path in tmp_path.iterdir()] == [TRIALS_FILE]


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for again in (False, True):
        with pytest.raises(OutputError, match="did not make"):
            Journal(tmp_path, "tune", {}, again)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_one_process_works_on_it_at_a_time(tmp_path):
    journal = opened(tmp_path)
    with pytest.raises(OutputError, match="another process is at work there"):
        opened(tmp_path)
    journal.close()
    opened(tmp_path).close()


def test_a_damaged_file_is_named(tmp_path):
    opened(tmp_path).close()
    (tmp_path / TRIALS_FILE).write_text("{]\n")
    with pytest.raises(OutputError, match=f"{TRIALS_FILE} is damaged"):
        opened(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        opened(tmp_path / "file" / "search")


def test_the_median_over_seeds_counts():
    progress = Progress(histories={0: history(0.1, 0.5), 1: history(0.2, 0.1), 2: history(0.3)})
    assert (progress.best("ndcg@20"), progress.newest("ndcg@20"), progress.epoch) == (0.3, 0.3, 2)
    assert progress.model_copy(update={"measures": {"size": 7.0}}).best("size") == 7.0
