import csv
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

from cluster.config import ClusterConfig, TrackingConfig
from cluster.errors import ConfigError, OutputError, StaleInputError
from cluster.registry import Registry
from cluster.storage import MANIFEST_FILE, Manifest, read_manifest
from cluster.tracking import Tracker
from dllm2rec import main
from student_train.config import StudentConfig, TrainConfig
from student_train.recommender import Recommender
from tune import config as tune_config
from tune.config import AshaConfig, Range, SearchConfig, TuneConfig
from tune.search import tune


def small(
    dataset: Path, labels: Path | None, where: Path, tracking: TrackingConfig | None = None, **settings: object
) -> TuneConfig:
    """A search of seconds: a tiny student and two configurations."""
    shape = StudentConfig(width=8, heads=1, layers=1, history=5)
    train = TrainConfig(dataset=dataset, labels=labels, shape=shape, batch=32, epochs=4)
    settings = {"asha": AshaConfig(max_epochs=4, grace=1, reduction=2), "trials": 2} | settings
    return TuneConfig(
        train=train,
        output=where / "search",
        register_as="searched",
        tracking=tracking or TrackingConfig(),
        cluster=ClusterConfig(cpus=2),
        **settings,
    )


@pytest.fixture(scope="module")
def searched(ray_local, dataset, labels, new_store, tmp_path_factory):
    """One real search for all tests: its config and its output directory."""
    config = small(dataset, labels, tmp_path_factory.mktemp("search"), new_store(), seeds=2)
    return SimpleNamespace(config=config, output=tune(config))


def children(config: TuneConfig, name: str) -> list[mlflow.entities.Run]:
    """Runs named ``name`` … under the one search run."""
    tracker = Tracker(config.tracking)
    client = mlflow.MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment).experiment_id
    runs = client.search_runs([experiment])
    (parent,) = [run for run in runs if run.info.run_name == "tune sasrec"]
    assert parent.info.status == "FINISHED"
    under = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return [run for run in under if run.info.run_name.startswith(name)]


@pytest.mark.engine
def test_every_trial_stands_in_the_table(searched):
    with (searched.output / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "1", "0", "1"]
    assert rows[0]["lam"] == rows[1]["lam"]
    assert rows[0]["lam"] != rows[2]["lam"]
    lam = searched.config.search.lam
    assert all(lam.low <= float(row["lam"]) <= lam.high for row in rows)
    assert float(rows[0]["lam"]) == searched.config.train.distillation.lam
    assert float(rows[0]["learning_rate"]) == searched.config.train.learning_rate
    manifest = read_manifest(searched.output, "tune")
    assert manifest.counts == {"trials": 4, "failed": 0}
    assert set(manifest.inputs) == {"dataset", "labels", "teacher"}


@pytest.mark.engine
def test_every_trial_is_a_nested_run_with_its_curve_and_end(searched):
    runs = children(searched.config, "trial")
    assert sorted(run.info.run_name for run in runs) == [f"trial {n}" for n in (1, 2, 3, 4)]
    client = mlflow.MlflowClient(Tracker(searched.config.tracking).uri)
    for run in runs:
        curve = client.get_metric_history(run.info.run_id, "validation_ndcg_at_20")
        assert [point.step for point in curve] == list(range(1, len(curve) + 1))
        assert run.info.status == "FINISHED"
        assert run.data.tags["state"] == ("complete" if len(curve) == 4 else "stopped early")
        assert set(run.data.params) == {*tune_config.searched(searched.config), "seed"}


@pytest.mark.engine
def test_the_best_student_is_trained_registered_and_answers(searched):
    student = searched.output / "student"
    manifest = read_manifest(student, "train")
    version = Registry(Tracker(searched.config.tracking)).version("searched")
    assert version.tags["fingerprint.student"] == manifest.fingerprint
    assert version.tags["validation_ndcg_at_20"] == repr(manifest.metrics["validation_ndcg@20"])
    assert [run.info.run_name for run in children(searched.config, "student")] == ["student searched"]
    assert len(Recommender(student).recommend([["i1"]], k=5)["titles"][0]) == 5


@pytest.mark.engine
def test_the_final_training_repeats_the_trial_of_its_seed(searched):
    manifest = read_manifest(searched.output / "student", "train")
    with (searched.output / "trials.csv").open() as file:
        (trial,) = [
            row
            for row in csv.DictReader(file)
            if row["seed"] == "0" and float(row["lam"]) == manifest.config["distillation"]["lam"]
        ]
    if trial["state"] == "complete":
        assert float(trial["validation_ndcg@20"]) == pytest.approx(manifest.metrics["validation_ndcg@20"], abs=1e-6)
    assert float(trial["learning_rate"]) == manifest.config["learning_rate"]


@pytest.mark.engine
def test_a_search_whose_trials_all_fail_says_why_and_leaves_nothing(ray_local, dataset, labels, new_store, tmp_path):
    search = SearchConfig(parameters=("learning_rate",), learning_rate=Range(low=1e28, high=1e30))
    config = small(dataset, labels, tmp_path, new_store(), search=search, trials=1)
    with pytest.raises(ConfigError, match=r"all 1 trials failed; the first one: .*loss is"):
        tune(config)
    assert not config.output.exists()
    client = mlflow.MlflowClient(Tracker(config.tracking).uri)
    statuses = [
        run.info.status for run in client.search_runs([client.get_experiment_by_name("dllm2rec").experiment_id])
    ]
    assert statuses == ["FAILED", "FAILED"]


@pytest.mark.engine
def test_a_trial_larger_than_the_cluster_is_refused(ray_local, dataset, labels, new_store, tmp_path):
    with pytest.raises(ConfigError, match="one trial's workers ask for 64 CPU, the cluster has 2"):
        tune(small(dataset, labels, tmp_path, new_store(), cpus_per_trial=64))


def test_labels_of_another_data_set_are_refused(dataset, labels, tmp_path):
    for file in labels.rglob("*"):
        if file.is_file():
            (tmp_path / "labels" / file.relative_to(labels)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "labels" / file.relative_to(labels)).write_bytes(file.read_bytes())
    manifest = Manifest.model_validate_json((labels / MANIFEST_FILE).read_text())
    manifest.inputs["dataset"] = "another"
    (tmp_path / "labels" / MANIFEST_FILE).write_text(manifest.model_dump_json())
    with pytest.raises(StaleInputError, match="another dataset"):
        tune(small(dataset, tmp_path / "labels", tmp_path))


def test_searching_distillation_without_a_teacher_is_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match="names lam, which has no effect without a teacher"):
        tune(small(dataset, None, tmp_path, search=SearchConfig(parameters=("lam",))))


def test_searching_what_the_strategy_does_not_use_is_refused(dataset, labels, tmp_path):
    search = SearchConfig(parameters=("lam", "gamma_position"))
    with pytest.raises(ConfigError, match="names gamma_position, which has no effect with the strategy soft"):
        tune(small(dataset, labels, tmp_path, search=search))


def test_a_range_beyond_what_training_accepts_is_refused(dataset, labels, tmp_path):
    search = SearchConfig(parameters=("learning_rate",), learning_rate=Range(low=0, high=1))
    with pytest.raises(ConfigError, match=r"`learning_rate` = 0\.0"):
        tune(small(dataset, labels, tmp_path, search=search))


def test_an_output_that_holds_something_else_is_refused_before_the_search(dataset, labels, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="did not make"):
        tune(small(dataset, labels, tmp_path))


def test_the_command_ends_with_one_line_and_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tune", "--train.dataset", str(tmp_path / "none"), "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run `dllm2rec prepare" in line
