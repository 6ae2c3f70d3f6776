from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from ray.exceptions import ActorDiedError, ObjectStoreFullError, RayTaskError
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial

from cluster.config import ResourcesConfig
from cluster.errors import ConfigError, OutputError, UserError
from student_train.config import ModelConfig
from tests.tune.records import history, record, room_for
from tune.follow import Follow, reason_of, table
from tune.journal import Journal, Progress, Record
from tune.trial import Plan

POINT = {"lam": 0.12345, "model.name": "sasrec"}


def test_the_table_shows_stage_best_and_time_left():
    head, first = table([record(4, 0.3, 0.2, point=POINT, seconds=3.0)], "ndcg@20", 10).splitlines()
    assert head.split()[:2] == ["trial", "stage"]
    assert "epoch 2/10" in first and "0.3000" in first and "≤ 12 s" in first and "lam 0.123, name sasrec" in first


def test_the_reason_of_an_error_is_one_line():
    assert reason_of(RuntimeError("Traceback\n  somewhere\nValueError: too large")) == "ValueError: too large"
    assert reason_of(KeyError()) == "KeyError"
    assert reason_of(None) == "no reason given"
    with pytest.raises(ValidationError) as caught:
        ModelConfig(hidden_size=9, num_heads=2)
    assert reason_of(caught.value) == "num_heads 2 must divide hidden_size 9"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    # Where Ray keeps its files on this machine; a Ray that runs would say.
    monkeypatch.setattr("ray.train._internal.storage._get_ray_train_session_dir", lambda: str(tmp_path / "ray"))
    made = Journal(tmp_path / "search", "tune", {})
    made.append(Record(number=4, point=POINT))
    yield made
    made.close()


class Followed:
    """Ray Tune's own trial number 4 of a search, and what was said of it."""

    def __init__(self, journal: Journal, where: Path, storage: str = "") -> None:
        self.ended: list[Record] = []
        plan = Plan(train={"epochs": 9}, resources=ResourcesConfig(), storage=storage)
        self.follow = Follow(journal, plan, 5, self.ended.append)
        context = StorageContext(storage_path=str(where), experiment_dir_name="search", trial_dir_name="trial")
        parts = {"number": 4, "point": POINT, "checkpoint": None}
        self.trial = Trial("trial", config=parts, evaluated_params=parts, storage=context, stub=True, max_failures=3)
        self.trial.init_local_path()

    def report(self, *ndcg: float, complete: bool = False, **other: object) -> None:
        progress = Progress(histories={0: history(*ndcg)}, seconds=3.0).model_dump_json()
        self.trial.update_last_result({"progress": progress, "complete": complete} | other)

    def fail(self, error: Exception, times: int) -> None:
        for _ in range(times):
            self.trial.handle_error(error)
        self.follow.on_trial_error(1, [self.trial], self.trial)


@pytest.mark.parametrize(("complete", "state"), [(True, "complete"), (False, "stopped early")])
def test_a_trial_that_ended_is_kept(journal: Journal, tmp_path: Path, complete: bool, state: str):
    followed = Followed(journal, tmp_path)
    followed.report(0.1, 0.3, complete=complete)
    followed.follow.on_trial_complete(1, [], followed.trial)
    (kept,) = followed.ended
    assert journal.ended == [kept]
    assert (kept.number, kept.point, kept.state, kept.best("ndcg@20"), kept.seconds) == (4, POINT, state, 0.3, 3.0)


def test_a_trial_that_failed_for_good_says_why(journal: Journal, tmp_path: Path):
    followed = Followed(journal, tmp_path)
    followed.trial.update_last_result({"failed": "loss is nan"})
    followed.follow.on_trial_complete(1, [], followed.trial)
    assert [(kept.state, kept.reason, kept.histories) for kept in followed.ended] == [("failed", "loss is nan", {})]


def test_a_member_that_took_over_weights_is_kept_with_its_new_values(journal: Journal, tmp_path: Path):
    followed = Followed(journal, tmp_path)
    followed.report(0.1, complete=True)
    followed.trial.set_config({"number": 2, "point": {"lam": 0.7}, "checkpoint": None})
    followed.follow.on_trial_complete(1, [], followed.trial)
    assert [(kept.number, kept.parent, kept.point) for kept in followed.ended] == [(4, 2, {"lam": 0.7})]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RayTaskError("train", "Traceback", RuntimeError("out of memory")).as_instanceof_cause(), "out of memory"),
        (ActorDiedError(), "its process died"),
    ],
)
def test_a_trial_that_failed_as_often_as_it_may_is_kept_with_its_reason(
    journal: Journal, tmp_path: Path, error: Exception, reason: str
):
    followed = Followed(journal, tmp_path)
    followed.report(0.1)
    followed.fail(error, times=4)
    assert followed.follow.stop.fault is None
    assert [(kept.state, kept.reason, kept.epoch) for kept in followed.ended] == [("failed", reason, 1)]


def test_a_trial_whose_process_died_between_two_trials_stays_open(journal: Journal, tmp_path: Path):
    followed = Followed(journal, tmp_path)
    followed.fail(ActorDiedError(), times=1)
    assert (followed.ended, followed.follow.stop.fault) == ([], None)
    assert [open_.number for open_ in journal.open] == [4]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("too small a cluster"), r"trial 4 cannot train: too small a cluster \(fixed"),
        (OSError(28, "No space left on device"), r"trial 4 cannot train: .*No space left on device"),
        (ObjectStoreFullError(), "trial 4 cannot train: "),
    ],
)
def test_what_is_no_fault_of_the_point_ends_the_search_and_is_not_kept(
    journal: Journal, tmp_path: Path, error: Exception, line: str
):
    followed = Followed(journal, tmp_path)
    followed.fail(RayTaskError("train", "Traceback", error), times=4)
    assert followed.ended == []
    assert followed.follow.stop.stop_all()
    with pytest.raises(UserError, match=line):
        raise followed.follow.stop.fault


def test_a_journal_that_cannot_be_written_ends_the_search(journal: Journal, tmp_path: Path):
    followed = Followed(journal, tmp_path)
    followed.report(0.1, complete=True)
    with room_for(0):
        followed.follow.on_trial_complete(1, [], followed.trial)
    assert followed.ended == []
    assert isinstance(followed.follow.stop.fault, OutputError)
