"""Promotion and rollback in real stores of registered students."""

import json
import re

import mlflow
import pytest

from cluster.config import TrackingConfig
from cluster.errors import ModelError, OutputError
from cluster.storage import read_manifest
from cluster.tracking import Tracker
from model_registry.config import PromoteConfig, RollbackConfig
from model_registry.promote import promote, rollback
from model_registry.register import register_student

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
    assert read_manifest(tmp_path / "promotion", "promote").metrics["gate_ndcg@20"] == decision["candidate_ndcg"]
    put("student", BARELY)
    promote(config)
    promote(config.model_copy(update={"version": 3}))
    first, none, refused, better, moved, barely, same = capsys.readouterr().out.splitlines()
    assert first.startswith("promoted: student version 1 is the first champion")
    assert none == "champion of student: was none, is version 1"
    assert refused.startswith("not promoted: student version 2")
    assert better.startswith("promoted: student version 3 is the new champion")
    assert moved == "champion of student: was version 1, is version 3"
    assert "not promoted: student version 4 is not surely better: gate_ndcg@20 0.9" in barely
    assert re.search(r"of champion version 3, a gain of at least -0.00\d\d with 95% confidence", barely)
    assert "is the champion already" in same
    rollback(back)
    assert capsys.readouterr().out == "rolled back\nchampion of student: was version 3, is version 1\n"
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
    slow, large, within, _ = capsys.readouterr().out.splitlines()
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


def test_a_version_without_gate_rows_is_refused(tracking, put, tmp_path):
    put("older", None)
    with pytest.raises(ModelError, match=r"`older` version 1 holds no gate.parquet: .* prepare --gate-share 0.2"):
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
