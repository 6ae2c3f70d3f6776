"""Promotion and rollback in real stores of registered students."""

import json
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from cluster.config import TrackingConfig
from cluster.errors import ModelError, OutputError
from cluster.storage import read_manifest
from cluster.tracking import Tracker
from model_registry.champion import CLAIM, roll_back, set_champion
from model_registry.config import PromoteConfig, RollbackConfig
from model_registry.promote import promote, rollback
from model_registry.register import register_student
from model_registry.versions import Registry

pytestmark = pytest.mark.engine

GOOD, POOR = [1] * 50 + [2] * 10, [5] * 50 + [30] * 10
BETTER = [1] * 60
BARELY = [1] * 51 + [2] * 9


@pytest.fixture(scope="module")
def tracking(new_store) -> TrackingConfig:
    return new_store()


@pytest.fixture
def put(tracking, make_student):
    """Registers a student with these validation ranks under ``name``."""
    made = iter(range(100))

    def register(name: str, ranks: list[int] | None, **settings) -> None:
        register_student(Tracker(tracking), make_student(f"s{next(made)}", ranks=ranks, **settings), name)

    return register


def aliases(tracking: TrackingConfig, name: str) -> dict[str, int]:
    found = mlflow.MlflowClient(Tracker(tracking).uri).get_registered_model(name).aliases
    return {alias: int(version) for alias, version in found.items()}


def test_aliases_follow_what_is_surely_better_and_back(tracking, put, tmp_path, capsys):
    config = PromoteConfig(name="student", tracking=tracking, output=tmp_path / "promotion")
    back = RollbackConfig(name="student", tracking=tracking, output=tmp_path / "rollback")
    put("student", POOR)
    assert aliases(tracking, "student") == {"challenger": 1}
    promote(config)
    assert aliases(tracking, "student") == {"champion": 1}
    with pytest.raises(ModelError, match="`student` has no previous champion before version 1"):
        rollback(back)
    put("student", POOR)
    assert aliases(tracking, "student") == {"champion": 1, "challenger": 2}
    promote(config)
    put("student", GOOD)
    promote(config)
    assert aliases(tracking, "student") == {"champion": 3, "previous": 1}
    decision = json.loads((tmp_path / "promotion" / "decision.json").read_text())
    assert (decision["candidate"], decision["champion"], decision["promoted"]) == (3, 1, True)
    assert decision["least_gain"] > 0.5
    assert read_manifest(tmp_path / "promotion", "promote").metrics["validation_ndcg@20"] == decision["candidate_ndcg"]
    put("student", BARELY)
    promote(config)
    promote(config.model_copy(update={"version": 3}))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == [
        *("promoted", "not promoted", "promoted", "not promoted", "not promoted")
    ]
    assert "not promoted: student version 4 is not surely better: validation_ndcg@20 0.9" in printed[3]
    assert "of champion version 3, a gain of at least +0.0000 with 95% confidence" in printed[3]
    assert "is the champion already" in printed[4]
    rollback(back)
    assert aliases(tracking, "student") == {"champion": 1, "challenger": 4}
    assert json.loads((tmp_path / "rollback" / "decision.json").read_text())["was"] == 3
    promote(config)
    assert aliases(tracking, "student") == {"champion": 4, "previous": 1}


def test_limits_refuse_and_say_what_was_measured(tracking, put, tmp_path, capsys):
    put("limited", GOOD)
    config = PromoteConfig(name="limited", tracking=tracking, output=tmp_path / "promotion")
    promote(config.model_copy(update={"max_latency_ms": 1e-6}))
    promote(config.model_copy(update={"max_megabytes": 1e-6}))
    assert "champion" not in aliases(tracking, "limited")
    promote(config.model_copy(update={"max_latency_ms": 1e6, "max_megabytes": 1e6}))
    assert aliases(tracking, "limited")["champion"] == 1
    slow, large, within = capsys.readouterr().out.splitlines()
    assert "ms for a request (99th percentile), more than --max-latency-ms 1e-06" in slow
    assert "MB, more than --max-megabytes 1e-06" in large
    assert within.startswith("promoted: limited version 1 is the first champion")


def test_students_of_different_data_sets_are_compared_only_on_request(tracking, put, tmp_path, capsys):
    put("moved", POOR)
    config = PromoteConfig(name="moved", tracking=tracking, output=tmp_path / "promotion")
    promote(config)
    put("moved", GOOD, dataset="another")
    promote(config)
    assert "was measured on another data set" in capsys.readouterr().out.splitlines()[-1]
    assert aliases(tracking, "moved")["champion"] == 1
    promote(config.model_copy(update={"across_datasets": True}))
    assert aliases(tracking, "moved")["champion"] == 2


def test_a_version_without_ranks_is_named(tracking, put, tmp_path):
    put("older", None)
    with pytest.raises(ModelError, match=r"`older` version 1 holds no .*validation.parquet: train and register"):
        promote(PromoteConfig(name="older", tracking=tracking, output=tmp_path / "promotion"))
    assert not (tmp_path / "promotion").exists()


def test_a_refused_output_leaves_the_alias_alone(tracking, put, tmp_path):
    put("kept", GOOD)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="did not make"):
        promote(PromoteConfig(name="kept", tracking=tracking, output=tmp_path / "notes"))
    assert "champion" not in aliases(tracking, "kept")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"


RACER = """
import sys
from cluster.config import TrackingConfig
from model_registry.versions import Registry
from cluster.tracking import Tracker
from tests.model_registry.test_promote import race

race(Registry(Tracker(TrackingConfig(uri=sys.argv[1]))), int(sys.argv[2]), sys.argv[3])
"""
ROUNDS = ("raced-0", "raced-1", "raced-2")


def race(registry: Registry, number: int, folder: str) -> None:
    """Crown version ``number`` in every round, each begun when the other process is there too."""
    for name in ROUNDS:
        candidate = registry.version(name, number)
        Path(folder, f"{name}-{number}").touch()
        while len(list(Path(folder).glob(f"{name}-*"))) < 2:
            time.sleep(0.001)
        set_champion(registry, candidate, None)


def test_promotions_of_two_processes_at_once_leave_the_better_one(tracking, tmp_path):
    tracker = Tracker(tracking)
    client = mlflow.MlflowClient(tracker.uri)
    for name in ROUNDS:
        client.create_registered_model(name)
        for figure in ("0.2", "0.3"):
            client.create_model_version(name, source="models/none", tags={"validation_ndcg_at_20": figure})
    (ready := tmp_path / "ready").mkdir()
    command = [sys.executable, "-c", RACER, tracker.uri, "2", str(ready)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as other:
        race(Registry(tracker), 1, str(ready))
    assert other.returncode == 0
    assert [aliases(tracking, name)["champion"] for name in ROUNDS] == [2, 2, 2]


def test_a_champion_that_the_candidate_was_not_compared_with_stays(tracking):
    """What a slow promotion finds: another was promoted over its champion, and yet another over that one."""
    registry = Registry(Tracker(tracking))
    client = mlflow.MlflowClient(Tracker(tracking).uri)
    client.create_registered_model("overtaken")
    for figure in ("0.1", "0.2", "0.4", "0.3"):
        client.create_model_version("overtaken", source="models/none", tags={"validation_ndcg_at_20": figure})
    first, second, third, slow = registry.versions("overtaken")
    set_champion(registry, first, None)
    set_champion(registry, second, first)
    set_champion(registry, third, second)
    assert set_champion(registry, slow, first).version == 3
    assert aliases(tracking, "overtaken") == {"champion": 3, "previous": 2, "challenger": 4}
    assert CLAIM not in registry.version("overtaken", 4).tags


def test_the_last_to_look_gives_the_place_to_the_best_claim(tracking):
    """What the loser of a race finds: another version has claimed the place and is better."""
    registry = Registry(Tracker(tracking))
    client = mlflow.MlflowClient(Tracker(tracking).uri)
    client.create_registered_model("claimed")
    for figure in ("0.1", "0.3", "0.2"):
        client.create_model_version("claimed", source="models/none", tags={"validation_ndcg_at_20": figure})
    first, better, good = registry.versions("claimed")
    registry.set_alias(first, "champion")
    registry.set_tag(better, CLAIM, "1")
    assert set_champion(registry, good, first).version == 2
    assert aliases(tracking, "claimed") == {"champion": 2, "previous": 1, "challenger": 3}
    roll_back(registry, "claimed")
    assert set_champion(registry, good, first).version == 3
