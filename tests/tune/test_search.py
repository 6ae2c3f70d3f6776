"""Searches on a real Ray: one is killed, driver and trial, and gone on with; others show what each scheduler does."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import mlflow
import psutil
import pytest
import ray
import yaml

from cluster.config import ClusterConfig, ResourcesConfig, TrackingConfig
from cluster.errors import ConfigError, OutputError, StaleInputError
from cluster.storage import MANIFEST_FILE, Manifest, read_manifest
from cluster.tracking import Tracker
from dllm2rec import main
from model_registry.versions import Registry
from student_serve.recommender import Recommender
from student_train.config import ModelConfig, TrainConfig
from tests.mlflow_server import free_port
from tune.best import best_of, set_champion
from tune.config import AshaConfig, Domain, PbtConfig, SearchConfig, TuneConfig
from tune.journal import TRIALS_FILE, Record, parse
from tune.points import total
from tune.run import run_trials
from tune.search import base_config, open_journal, parts, plan_of, tune
from tune.space import space_of
from tune.track import track
from tune.track_config import TrackConfig

ROOT = Path(__file__).parent.parent.parent
MODEL = ModelConfig(hidden_size=8, num_heads=1, num_layers=1, max_length=5)


def small(
    dataset: Path, labels: Path | None, where: Path, tracking: TrackingConfig | None = None, **settings: object
) -> TuneConfig:
    """A search of seconds: a tiny student."""
    settings = {"asha": AshaConfig(max_epochs=4, grace=1, reduction=2), "trials": 2} | settings
    return TuneConfig(
        train=TrainConfig(dataset=dataset, labels=labels, model=MODEL, batch_size=32, epochs=4),
        output=where / "search",
        register_as="searched",
        tracking=tracking or TrackingConfig(),
        cluster=ClusterConfig(cpus=2),
        **settings,
    )


def run(config: TuneConfig, ended: Callable[[Record], None] = lambda record: None) -> list[Record]:
    """The trials of a search, without what comes after them."""
    base, space = base_config(config), space_of(config)
    with closing(open_journal(config, base, space, {})) as journal:
        return run_trials(
            lambda: plan_of(config, base, space, {}),
            journal,
            lambda: parts(config, base, space, journal),
            total=total(config, base, space),
            config=config,
            ended=ended,
        )


def states(output: Path) -> dict[int, Record]:
    """The trials of a journal that another process writes."""
    file = output / TRIALS_FILE
    text = file.read_text() if file.is_file() else ""
    return parse(text[: text.rfind("\n") + 1])[1]


def kill_driver(config: TuneConfig, where: Path, when: Callable[[dict[int, Record]], bool]) -> dict[int, Record]:
    """Run a search as a command and kill it; returns its trials as they stand then."""
    (where / "search.yaml").write_text(yaml.safe_dump({"tune": config.model_dump(mode="json")}))
    command = [sys.executable, "-m", "dllm2rec", "tune", "--config", str(where / "search.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (where / "log").open("w") as log:
        driver = subprocess.Popen(command, cwd=where, env=environment, stdout=log, stderr=log)
        while not when(states(config.output)) and driver.poll() is None:
            time.sleep(0.02)
        driver.kill()
    assert driver.wait() == -signal.SIGKILL, (where / "log").read_text()
    return states(config.output)


def kill_trial(output: Path, killed: list[int]) -> None:
    """Kill the process of a trial as soon as one more trial ended."""
    before = len([trial for trial in states(output).values() if trial.state != "running"])
    while len([trial for trial in states(output).values() if trial.state != "running"]) == before:
        time.sleep(0.02)
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::") and "Inner" in process.name():
            process.kill()
            killed.append(process.pid)
            return


@pytest.fixture(scope="module")
def searched(ray_local, dataset, labels, new_store, tmp_path_factory):
    """The one search: its config, its output, its trials when its driver was killed, and which process else was."""
    where = tmp_path_factory.mktemp("search")
    # Trials report every second, so that one of several seconds has a checkpoint before a rung may end it.
    asha = AshaConfig(max_epochs=20, grace=10, reduction=2)
    config = small(dataset, labels, where, new_store(), trials=6, seeds=2, checkpoint_seconds=0, asha=asha)
    before = kill_driver(
        config,
        where,
        lambda trials: (
            {trial.state for trial in trials.values()} > {"running"}
            and any(trial.checkpoint for trial in trials.values() if trial.state == "running")
        ),
    )
    killed: list[int] = []
    thread = threading.Thread(target=kill_trial, args=(config.output, killed), daemon=True)
    thread.start()
    output = tune(config)
    thread.join(timeout=10)
    return SimpleNamespace(config=config, output=output, before=before, killed=killed, after=states(output))


def runs_under(config: TuneConfig, name: str) -> list[mlflow.entities.Run]:
    """Runs named ``name`` … under the one search run."""
    tracker = Tracker(config.tracking)
    client = mlflow.MlflowClient(tracker.uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment).experiment_id
    runs = client.search_runs([experiment])
    (parent,) = [run for run in runs if run.info.run_name == "tune search"]
    assert parent.info.status == "FINISHED"
    under = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return [run for run in under if run.info.run_name.startswith(name)]


@pytest.mark.engine
def test_after_kills_every_trial_ended_once_and_those_that_ran_went_on(searched):
    assert len(searched.killed) == 1
    assert sorted(searched.after) == list(range(6))
    assert {trial.state for trial in searched.after.values()} <= {"complete", "stopped early"}
    for number, before in searched.before.items():
        after = searched.after[number]
        if before.state != "running":
            assert after == before
        for seed, history in before.histories.items():
            assert after.histories[seed][: len(history)] == history
    assert any(trial.checkpoint for trial in searched.before.values() if trial.state == "running")
    assert not (searched.output / ".trials").exists()
    text = (searched.output / TRIALS_FILE).read_text().splitlines()
    ended = [line for line in text if '"ended"' in line and '"state":"' in line]
    assert len(ended) == 6


@pytest.mark.engine
def test_every_trial_and_seed_stands_in_the_table(searched):
    with (searched.output / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["seed"]) for row in rows] == [(str(n), str(s)) for n in range(6) for s in range(2)]
    lam = [float(row["distillation.lam"]) for row in rows]
    assert lam[0] == lam[1] == searched.config.train.distillation.lam
    assert len(set(lam)) == 6
    best = best_of(list(searched.after.values()), "ndcg@20")
    chosen = yaml.safe_load((searched.output / "best_config.yaml").read_text())["train"]
    assert chosen["distillation"]["lam"] == best.point["distillation.lam"]
    manifest = read_manifest(searched.output, "tune")
    assert manifest.counts == {"trials": 6, "failed": 0}
    assert manifest.metrics == {"search_validation_ndcg@20": best.best("ndcg@20")}
    assert set(manifest.inputs) == {"dataset", "labels", "teacher"}


@pytest.mark.engine
def test_every_trial_is_one_nested_run_with_its_curve_and_end(searched):
    runs = runs_under(searched.config, "trial")
    assert sorted(run.info.run_name for run in runs) == sorted(f"trial {n}" for n in range(6))
    client = mlflow.MlflowClient(Tracker(searched.config.tracking).uri)
    for run_ in runs:
        trial = searched.after[int(run_.data.tags["trial"])]
        curve = client.get_metric_history(run_.info.run_id, "validation_ndcg_at_20_seed_0")
        assert [point.value for point in curve] == [at["ndcg@20"] for at in trial.histories[0]]
        assert (run_.info.status, run_.data.tags["state"]) == ("FINISHED", trial.state)
        assert set(run_.data.params) == set(space_of(searched.config))


@pytest.mark.engine
def test_the_best_student_is_trained_registered_and_answers(searched):
    student = searched.output / "student"
    manifest = read_manifest(student, "train")
    version = Registry(Tracker(searched.config.tracking)).version("searched")
    assert version.tags["fingerprint.student"] == manifest.fingerprint
    assert [run.info.run_name for run in runs_under(searched.config, "train")] == ["train sasrec"]
    assert len(Recommender(student).recommend([["i1"]], k=5)["titles"][0]) == 5
    assert read_manifest(searched.output / "plain", "train").config["labels"] is None


@pytest.mark.engine
def test_the_report_stands_in_mlflow_too(searched):
    names = {path.name for path in searched.output.iterdir() if path.suffix in (".png", ".html", ".csv", ".yaml")}
    assert {"report.html", "champion.png", "best_so_far.png", "points.png", "lam_ed_weight.png"} <= names
    client = mlflow.MlflowClient(Tracker(searched.config.tracking).uri)
    parent = runs_under(searched.config, "trial")[0].data.tags["mlflow.parentRunId"]
    assert {artifact.path for artifact in client.list_artifacts(parent)} == names


@pytest.mark.engine
def test_the_same_command_again_does_nothing_twice(searched):
    student, journal = (searched.output / "student" / MANIFEST_FILE, searched.output / TRIALS_FILE)
    before = student.read_bytes(), journal.read_bytes()
    tune(searched.config)
    assert (student.read_bytes(), journal.read_bytes()) == before
    assert len(runs_under(searched.config, "trial")) == 6
    track(TrackConfig(directories=(searched.output, searched.output / "student"), tracking=searched.config.tracking))
    assert len(runs_under(searched.config, "t")) == 7
    assert Registry(Tracker(searched.config.tracking)).version("searched").version == 1


@pytest.mark.engine
def test_another_space_in_its_place_is_refused(searched):
    other = SearchConfig(space={"distillation.lam": Domain(low=0.1, high=0.5)})
    with pytest.raises(OutputError, match=r"another search: search\.space\.distillation\.lam was 0\.1\.\.2, now it is"):
        tune(searched.config.model_copy(update={"search": other}))


@pytest.mark.engine
def test_a_finished_search_resumes_when_it_is_given_more(ray_local, dataset, tmp_path):
    config = small(dataset, None, tmp_path, search=SearchConfig(algorithm="optuna", objectives=("ndcg@20", "size")))
    before = run(config)
    ended: list[Record] = []
    after = run(config.model_copy(update={"trials": 4}), ended.append)
    assert after[:2] == before
    assert [record.number for record in ended[:2]] == [0, 1]  # what is done at its end may have been cut off
    assert sorted(record.number for record in ended[2:]) == [2, 3]
    assert all(record.measures["size"] > 0 for record in after)
    assert len({record.point["learning_rate"] for record in after}) == 4


@pytest.mark.engine
def test_a_search_whose_trials_all_fail_says_why(ray_local, dataset, labels, new_store, tmp_path):
    space = {"learning_rate": Domain(low=1e28, high=1e30)}
    config = small(dataset, labels, tmp_path, new_store(), search=SearchConfig(space=space), trials=1)
    with pytest.raises(ConfigError, match=r"all 1 trials failed; the first one: .*loss is"):
        tune(config)
    assert not (config.output / MANIFEST_FILE).exists()
    client = mlflow.MlflowClient(Tracker(config.tracking).uri)
    found = client.search_runs([client.get_experiment_by_name("dllm2rec").experiment_id])
    assert [run_.info.status for run_ in found] == ["FAILED", "FAILED"]


@pytest.mark.engine
def test_in_pbt_a_weak_member_takes_over_a_strong_ones_weights(ray_local, dataset, tmp_path):
    search = SearchConfig(space={"learning_rate": Domain(low=1e-6, high=3e-2, log=True)}, scheduler="pbt")
    config = small(dataset, None, tmp_path, trials=4, search=search, pbt=PbtConfig(rounds=3, epochs=2), seed=1)
    records = run(config)
    assert [(record.state, record.epoch) for record in records] == [("complete", 6)] * 4
    taken = [record for record in records if record.parent is not None]
    assert taken
    for child in taken:
        source = records[child.parent]
        assert child.histories[0][:2] == source.histories[0][:2]
        assert child.point["learning_rate"] != source.point["learning_rate"]
    best = best_of(records, "ndcg@20")
    champion = set_champion(config, base_config(config), best)
    assert champion.student.metrics["validation_ndcg@20"] == pytest.approx(best.best("ndcg@20"), abs=1e-6)


@pytest.mark.engine
def test_a_trial_with_several_workers_reports_through_ray_train(ray_local, dataset, labels, tmp_path):
    resources = ResourcesConfig(workers=2, cpus=0.5)
    asha = AshaConfig(max_epochs=4, grace=1, reduction=2)
    config = small(dataset, labels, tmp_path, trials=2, concurrent=1, resources=resources, asha=asha)
    records = run(config)
    assert (records[0].state, records[0].reason) == ("complete", "")
    assert [at["epoch"] for at in records[0].histories[0]] == [1, 2, 3, 4]
    assert records[1].state in ("complete", "stopped early")
    # A run that is killed with its trial gives back what its workers held.
    for _ in range(600):
        if ray.available_resources().get("CPU") == 2:
            break
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 2


@pytest.mark.engine
def test_a_trial_larger_than_the_cluster_is_refused(ray_local, dataset, labels, new_store, tmp_path):
    for resources, asked in ((ResourcesConfig(cpus=64), 64), (ResourcesConfig(workers=4), 4)):
        config = small(dataset, labels, tmp_path / str(asked), new_store(), resources=resources)
        with pytest.raises(ConfigError, match=rf"ask for {asked} CPU, the cluster has 2: lower --resources\.workers"):
            tune(config)
        assert states(config.output) == {}


@pytest.mark.engine
def test_a_tracking_server_that_is_away_stops_no_search(ray_local, dataset, new_store, tmp_path, capsys):
    away = TrackingConfig(uri=f"http://127.0.0.1:{free_port()}")
    config = small(dataset, None, tmp_path, away)
    output = tune(config)
    assert read_manifest(output, "tune").counts == {"trials": 2, "failed": 0}
    assert (output / "report.html").is_file()
    said = capsys.readouterr().out
    assert "no server answers there" in said and ": the same command registers it later" in said
    back = config.model_copy(update={"tracking": new_store()})
    tune(back)
    assert len(runs_under(back, "trial")) == 2
    assert Registry(Tracker(back.tracking)).version("searched").version == 1


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


def test_the_command_ends_with_one_line_and_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tune", "--train.dataset", str(tmp_path / "none"), "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run `dllm2rec prepare" in line
