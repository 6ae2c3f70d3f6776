from pathlib import Path

import pytest

from cluster.config import TrackingConfig
from cluster.errors import ConfigError
from cluster.run_record import RunRecord
from cluster.storage import read_manifest
from cluster.tracking import Tracker
from student_train.config import TrainConfig
from tests.mlflow_server import free_port
from tests.tune.records import record
from tune.best import best_config, best_of, plain_config, register_best
from tune.config import PbtConfig, SearchConfig, TuneConfig

BASE = TrainConfig(labels=Path("labels"), epochs=50, patience=7)
BEST = record(4, 0.1, 0.2, 0.3, point={"learning_rate": 0.01})


def test_the_best_trial_is_one_that_did_not_fail():
    assert best_of([record(0), record(1, 0.2), BEST], "ndcg@20") is BEST
    with pytest.raises(ConfigError, match="all 1 trials failed; the first one: loss is nan"):
        best_of([record(0, reason="loss is nan")], "ndcg@20")


def test_the_best_point_is_trained_as_the_train_section_says():
    assert best_config(TuneConfig(train=BASE), BASE, BEST) == BASE.model_copy(update={"learning_rate": 0.01})


def test_in_pbt_the_best_member_trains_no_further():
    config = TuneConfig(train=BASE, search=SearchConfig(scheduler="pbt"), pbt=PbtConfig(rounds=2, epochs=3))
    chosen = best_config(config, BASE, BEST)
    assert (chosen.epochs, chosen.learning_rate) == (3, 0.01)


def test_the_plain_student_is_the_train_section_without_a_teacher():
    assert plain_config(BASE) == BASE.model_copy(update={"labels": None})


def test_a_server_that_is_away_puts_registering_off(make_student, tmp_path):
    tracking = TrackingConfig(uri=f"http://127.0.0.1:{free_port()}")
    config = TuneConfig(train=BASE, output=tmp_path, tracking=tracking)
    line = register_best(config, Tracker(tracking), read_manifest(make_student()), RunRecord("tune-1", "tune search"))
    assert line.startswith("not registered (MLflow at --tracking.uri http://127.0.0.1")
    assert "no server answers there" in line
    assert line.endswith(": the same command registers it later")
