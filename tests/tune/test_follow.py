from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from ray.exceptions import ActorDiedError, ObjectStoreFullError, RayTaskError
from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Trial

from cluster.errors import ClusterError, ConfigError, UserError
from student_train.config import ModelConfig
from tune.follow import Follow, reason_of, record_of, table
from tune.journal import Journal

PROPOSAL = {"number": 4, "point": {"lam": 0.12345, "student": "sasrec"}, "seed": 1, "parent": 2, "settings": {}}
HISTORY = [{"epoch": 1, "loss": 2.0, "ndcg@20": 0.3}, {"epoch": 2, "loss": 1.0, "ndcg@20": 0.2}]


def test_a_record_says_how_a_trial_ended():
    last = {"history": HISTORY, "complete": True, "seconds": 3.0, "measures": {"size": 9.0}}
    kept = record_of(PROPOSAL, last)
    assert (kept.number, kept.seed, kept.parent, kept.state) == (4, 1, 2, "complete")
    assert (kept.best("ndcg@20"), kept.best("size"), kept.seconds) == (0.3, 9.0, 3.0)
    assert record_of(PROPOSAL, last | {"complete": False}).state == "stopped early"


def test_a_trial_that_gave_a_reason_or_no_figure_failed():
    assert record_of(PROPOSAL, {"failed": "loss is nan"}).reason == "loss is nan"
    assert record_of(PROPOSAL, {}).state == "failed"


def test_the_table_shows_stage_best_and_time_left():
    running = [(PROPOSAL, {"history": HISTORY, "seconds": 3.0}), (PROPOSAL | {"number": 5}, {})]
    head, first, second = table(running, "ndcg@20", 10).splitlines()
    assert head.split()[:2] == ["trial", "stage"]
    assert "epoch 2/10" in first and "0.3000" in first and "≤ 12 s" in first and "lam 0.123, student sasrec" in first
    assert "epoch 0/10" in second


def test_the_reason_of_an_error_is_one_line():
    assert reason_of(RuntimeError("Traceback\n  somewhere\nValueError: too large")) == "ValueError: too large"
    assert reason_of(KeyError()) == "KeyError"
    assert reason_of(None) == "no reason given"
    with pytest.raises(ValidationError) as caught:
        ModelConfig(hidden_size=9, num_heads=2)
    assert reason_of(caught.value) == "heads 2 must divide width 9"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    # Where Ray keeps its files on this machine; a Ray that runs would say.
    monkeypatch.setattr("ray.train._internal.storage._get_ray_train_session_dir", lambda: str(tmp_path / "ray"))
    made = Journal(tmp_path / "search", {})
    yield made
    made.close()


def fail(journal: Journal, where: Path, error: Exception, times: int) -> None:
    """Ray Tune's own trial of two members, one of which ended, fails for the last time."""
    journal.append(record_of(PROPOSAL | {"number": 3}, {"history": HISTORY, "complete": True}))
    members = {"members": [PROPOSAL | {"number": 3}, PROPOSAL]}
    storage = StorageContext(storage_path=str(where), experiment_dir_name="search", trial_dir_name="trial")
    trial = Trial("trial", config=members, storage=storage, stub=True, max_failures=3)
    trial.init_local_path()
    for _ in range(times):
        trial.handle_error(error)
    Follow(journal, lambda record: None, "ndcg@20", 5, 4).on_trial_error(1, [trial], trial)


@pytest.mark.parametrize(
    ("error", "times", "reason"),
    [
        (RayTaskError("train", "Traceback", RuntimeError("out of memory")).as_instanceof_cause(), 4, "out of memory"),
        (ActorDiedError(), 4, "its process died"),
    ],
)
def test_a_trial_that_failed_as_often_as_it_may_is_kept_with_its_reason(
    journal: Journal,
    tmp_path: Path,
    error: Exception,
    times: int,
    reason: str,
):
    fail(journal, tmp_path, error, times)
    assert journal.fault is None
    assert [(r.number, r.state, r.reason) for r in journal.records.values()] == [
        (3, "complete", ""),
        (4, "failed", reason),
    ]


@pytest.mark.parametrize(
    ("error", "times", "kind", "line"),
    [
        (ActorDiedError(), 1, ClusterError, "the process of trial 4 died: the same command goes on"),
        (ConfigError("too small a cluster"), 4, UserError, r"trial 4 cannot train: too small a cluster \(mended"),
        (OSError(28, "No space left on device"), 4, UserError, r"trial 4 cannot train: .*No space left on device"),
        (ObjectStoreFullError(), 4, UserError, "trial 4 cannot train: "),
    ],
)
def test_what_is_no_fault_of_the_point_ends_the_search_and_is_not_kept(
    journal: Journal,
    tmp_path: Path,
    error: Exception,
    times: int,
    kind: type[UserError],
    line: str,
):
    raised = error if isinstance(error, ActorDiedError) else RayTaskError("train", "Traceback", error)
    fail(journal, tmp_path, raised, times)
    assert list(journal.records) == [3]
    assert isinstance(journal.fault, kind)
    with pytest.raises(kind, match=line):
        raise journal.fault
