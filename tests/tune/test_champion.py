from pathlib import Path

from cluster.config import TrackingConfig
from cluster.storage import read_manifest
from cluster.tracking import Tracker
from student_train.config import TrainConfig
from tests.mlflow_server import free_port
from tests.tune.records import record
from tune.champion import best_config, plain_config, register_best, weights_of
from tune.config import PbtConfig, SearchConfig, TuneConfig
from tune.outcome import outcomes_of

BASE = TrainConfig(labels=Path("labels"), epochs=50, patience=7)


def best(config: TuneConfig):
    (outcome,) = outcomes_of([record(4, 0.1, 0.2, 0.3, point={"learning_rate": 0.01})], config)
    return outcome


def test_the_best_point_is_trained_as_the_train_section_says():
    config = TuneConfig(train=BASE)
    assert best_config(config, BASE, best(config)) == BASE.model_copy(update={"learning_rate": 0.01})
    assert weights_of(config, best(config)) is None


def test_in_pbt_the_weights_of_the_best_step_are_taken(tmp_path):
    search, pbt = SearchConfig(scheduler="pbt"), PbtConfig(rounds=2, epochs=3)
    config = TuneConfig(train=BASE, output=tmp_path, search=search, pbt=pbt)
    chosen = best_config(config, BASE, best(config))
    assert (chosen.epochs, chosen.patience, chosen.learning_rate) == (3, 6, 0.01)
    assert weights_of(config, best(config)) == tmp_path / ".checkpoints" / "4"


def test_the_plain_student_differs_by_its_teacher_alone():
    chosen = BASE.model_copy(update={"learning_rate": 0.01, "student": "gru4rec"})
    assert plain_config(BASE, chosen) == chosen.model_copy(update={"labels": None})


def test_without_a_teacher_the_champion_is_compared_with_the_train_section():
    base = BASE.model_copy(update={"labels": None})
    assert plain_config(base, base.model_copy(update={"learning_rate": 0.01})) == base


def test_a_server_that_is_away_puts_registering_off(make_student, tmp_path):
    tracking = TrackingConfig(uri=f"http://127.0.0.1:{free_port()}", journal=tmp_path / "journal")
    config = TuneConfig(train=BASE, output=tmp_path, tracking=tracking)
    line = register_best(config, Tracker(tracking), read_manifest(make_student()), "dllm2rec-search")
    assert line.startswith("not registered (MLflow at --tracking.uri http://127.0.0.1")
    assert line.endswith("no server answers there): the same command registers it later")
