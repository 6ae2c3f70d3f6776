"""One search for most tests: its driver is killed, it is gone on with, and a trial's process is killed meanwhile."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import mlflow
import psutil
import pytest
import torch
import yaml

from cluster.config import ClusterConfig, TrackingConfig
from cluster.errors import ConfigError, OutputError, StaleInputError
from cluster.storage import MANIFEST_FILE, Manifest, read_manifest
from cluster.tracking import Tracker
from dllm2rec import main
from model_registry.versions import Registry
from student_serve.recommender import Recommender
from student_train.config import ModelConfig, TrainConfig
from student_train.train import train
from tests.mlflow_server import free_port
from tune.champion import best_config, weights_of
from tune.config import AshaConfig, Domain, PbtConfig, SearchConfig, TuneConfig
from tune.journal import TRIALS_FILE, Journal, Record
from tune.opening import open_journal
from tune.outcome import best_of, outcomes_of
from tune.run import run_trials
from tune.search import base_config, tune
from tune.searcher import OrderedSearcher
from tune.space import space_of
from tune.track import track
from tune.track_config import TrackConfig

ROOT = Path(__file__).parent.parent.parent


def small(
    dataset: Path, labels: Path | None, where: Path, tracking: TrackingConfig | None = None, **settings: object
) -> TuneConfig:
    """A search of seconds: a tiny student."""
    model = ModelConfig(hidden_size=8, num_heads=1, num_layers=1, max_length=5)
    settings = {"asha": AshaConfig(max_epochs=4, grace=1, reduction=2), "trials": 2} | settings
    return TuneConfig(
        train=TrainConfig(dataset=dataset, labels=labels, model=model, batch_size=32, epochs=4),
        output=where / "search",
        register_as="searched",
        tracking=tracking or TrackingConfig(),
        cluster=ClusterConfig(cpus=2),
        **settings,
    )


def run(config: TuneConfig) -> list[Record]:
    """The trials of a search, without what comes after them."""
    base, space = base_config(config), space_of(config)
    with closing(open_journal(config, base, space, {})) as journal:
        return run_trials(config, base, space, journal, lambda record: None)


def result(record: Record) -> dict[str, object]:
    """What of a trial has to be the same whatever happened."""
    return record.model_dump(exclude={"ended", "seconds"})


def lines(output: Path) -> int:
    file = output / TRIALS_FILE
    return len(file.read_bytes().splitlines()) if file.is_file() else 0


def kill_driver(config: TuneConfig, where: Path, after: int) -> None:
    """Run a search as a command and kill it as soon as ``after`` trials ended."""
    (where / "search.yaml").write_text(yaml.safe_dump({"tune": config.model_dump(mode="json")}))
    command = [sys.executable, "-m", "dllm2rec", "tune", "--config", str(where / "search.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (where / "log").open("w") as log:
        driver = subprocess.Popen(command, cwd=where, env=environment, stdout=log, stderr=log)
        while lines(config.output) < after and driver.poll() is None:
            time.sleep(0.01)
        driver.kill()
    assert driver.wait() == -signal.SIGKILL, (where / "log").read_text()


def kill_trial(output: Path, killed: list[int]) -> None:
    """Kill the process of a trial as soon as one more trial ended."""
    before = lines(output)
    while lines(output) == before:
        time.sleep(0.01)
    for process in psutil.Process().children(recursive=True):
        if any("ImplicitFunc" in word for word in process.cmdline()):
            process.kill()
            killed.append(process.pid)
            return


@pytest.fixture(scope="module")
def searched(ray_local, dataset, labels, new_store, tmp_path_factory):
    """The one search: its config, its output directory and what was killed."""
    where = tmp_path_factory.mktemp("search")
    config = small(dataset, labels, where, new_store(), trials=6, seeds=2)
    kill_driver(config, where, after=2)
    before, killed = lines(config.output), []
    thread = threading.Thread(target=kill_trial, args=(config.output, killed), daemon=True)
    thread.start()
    output = tune(config)
    thread.join(timeout=10)
    return SimpleNamespace(config=config, output=output, before=before, killed=killed)


@pytest.fixture(scope="module")
def undisturbed(ray_local, dataset, labels, new_store, tmp_path_factory):
    """The trials of the same search when nothing happens to it."""
    return run(small(dataset, labels, tmp_path_factory.mktemp("search"), new_store(), trials=6, seeds=2))


def runs_under(config: TuneConfig, name: str) -> list[mlflow.entities.Run]:
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
def test_killed_driver_and_killed_trial_change_nothing(searched, undisturbed):
    assert 2 <= searched.before < 12
    assert len(searched.killed) == 1
    journal = Journal(searched.output, _identity_of(searched.output))
    found = [journal.records[number] for number in sorted(journal.records)]
    journal.close()
    assert lines(searched.output) == len(found) == 12
    assert list(map(result, found)) == list(map(result, undisturbed))
    assert {record.state for record in found} == {"complete", "stopped early"}
    best = best_of(outcomes_of(undisturbed, searched.config))
    chosen = yaml.safe_load((searched.output / "best_config.yaml").read_text())["train"]
    assert chosen == best_config(searched.config, base_config(searched.config), best).model_dump(mode="json")


def _identity_of(output: Path) -> dict[str, str]:
    return yaml.safe_load((output / "search.json").read_text())["search"]


@pytest.mark.engine
def test_every_trial_stands_in_the_table(searched):
    with (searched.output / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "1"] * 6
    assert [row["trial"] for row in rows] == list(map(str, range(12)))
    lam = [float(row["distillation.lam"]) for row in rows]
    assert lam[0] == lam[1] == searched.config.train.distillation.lam
    assert lam[0] != lam[2]
    assert all(space_of(searched.config)["distillation.lam"].holds(value) for value in lam)
    manifest = read_manifest(searched.output, "tune")
    assert manifest.counts == {"trials": 12, "failed": 0}
    assert set(manifest.inputs) == {"dataset", "labels", "teacher"}


@pytest.mark.engine
def test_every_trial_is_one_nested_run_with_its_curve_and_end(searched):
    runs = runs_under(searched.config, "trial")
    assert sorted(run.info.run_name for run in runs) == sorted(f"trial {n}" for n in range(12))
    client = mlflow.MlflowClient(Tracker(searched.config.tracking).uri)
    for run_ in runs:
        curve = client.get_metric_history(run_.info.run_id, "validation_ndcg_at_20")
        assert [point.step for point in curve] == list(range(1, len(curve) + 1))
        assert run_.info.status == "FINISHED"
        assert run_.data.tags["state"] == ("complete" if len(curve) == 4 else "stopped early")
        assert set(run_.data.params) == {*space_of(searched.config), "seed"}


@pytest.mark.engine
def test_the_best_student_is_trained_registered_and_answers(searched):
    student = searched.output / "student"
    manifest = read_manifest(student, "train")
    version = Registry(Tracker(searched.config.tracking)).version("searched")
    assert version.tags["fingerprint.student"] == manifest.fingerprint
    assert version.tags["validation_ndcg_at_20"] == repr(manifest.metrics["validation_ndcg@20"])
    assert [run.info.run_name for run in runs_under(searched.config, "train")] == ["train sasrec"]
    assert len(Recommender(student).recommend([["i1"]], k=5)["titles"][0]) == 5
    assert read_manifest(searched.output / "plain", "train").config["labels"] is None


@pytest.mark.engine
def test_the_final_training_repeats_the_trial_of_its_seed(searched, undisturbed):
    manifest = read_manifest(searched.output / "student", "train")
    lam = manifest.config["distillation"]["lam"]
    (trial,) = [r for r in undisturbed if r.seed == 0 and r.point["distillation.lam"] == lam]
    if trial.state == "complete":
        assert trial.best("ndcg@20") == pytest.approx(manifest.metrics["validation_ndcg@20"], abs=1e-6)
    assert trial.point["learning_rate"] == manifest.config["learning_rate"]


@pytest.mark.engine
def test_the_report_stands_in_mlflow_too(searched):
    names = {path.name for path in searched.output.iterdir() if path.suffix in (".png", ".html", ".csv", ".yaml")}
    assert {"report.html", "champion.png", "best_so_far.png", "points.png", "lam_ed_weight.png"} <= names
    client = mlflow.MlflowClient(Tracker(searched.config.tracking).uri)
    parent = runs_under(searched.config, "trial")[0].data.tags["mlflow.parentRunId"]
    assert {artifact.path for artifact in client.list_artifacts(parent)} == names


@pytest.mark.engine
def test_the_same_command_again_does_nothing_twice(searched):
    student = read_manifest(searched.output / "student").created
    tune(searched.config)
    assert lines(searched.output) == 12
    assert len(runs_under(searched.config, "trial")) == 12
    track(TrackConfig(directories=(searched.output, searched.output / "student"), tracking=searched.config.tracking))
    assert len(runs_under(searched.config, "t")) == 13
    assert read_manifest(searched.output / "student").created == student
    assert Registry(Tracker(searched.config.tracking)).version("searched").version == 1


@pytest.mark.engine
def test_another_space_in_its_place_is_refused(searched):
    other = SearchConfig(space={"distillation.lam": Domain(low=0.1, high=0.5)})
    with pytest.raises(OutputError, match=r"another search: search\.space\.distillation\.lam was 0\.1\.\.2, now it is"):
        tune(searched.config.model_copy(update={"search": other}))


@pytest.mark.engine
def test_a_search_whose_trials_all_fail_says_why(ray_local, dataset, labels, new_store, tmp_path):
    space = {"learning_rate": Domain(low=1e28, high=1e30)}
    config = small(dataset, labels, tmp_path, new_store(), search=SearchConfig(space=space), trials=1)
    with pytest.raises(ConfigError, match=r"all 1 trials failed; the first one: .*loss is"):
        tune(config)
    assert not (config.output / MANIFEST_FILE).exists()
    client = mlflow.MlflowClient(Tracker(config.tracking).uri)
    statuses = [
        run.info.status for run in client.search_runs([client.get_experiment_by_name("dllm2rec").experiment_id])
    ]
    assert statuses == ["FAILED", "FAILED"]


@pytest.mark.engine
def test_in_pbt_a_weak_member_takes_over_a_strong_ones_weights(ray_local, dataset, new_store, tmp_path):
    search = SearchConfig(space={"learning_rate": Domain(low=1e-6, high=3e-2, log=True)}, scheduler="pbt")
    pbt = PbtConfig(rounds=2, epochs=3)
    config = small(dataset, None, tmp_path, new_store(), trials=4, search=search, pbt=pbt, seed=1)
    records = run(config)
    born = records[:4]
    strong = max(born, key=lambda record: record.history[-1]["ndcg@20"])
    taken = [record for record in records[4:] if record.parent != record.number - 4]
    assert len(taken) == 1
    (child,) = taken
    weak = born[child.number - 4]
    assert weak.history[-1]["ndcg@20"] == min(record.history[-1]["ndcg@20"] for record in born)
    assert child.parent == strong.number
    assert child.history[:3] == strong.history
    assert child.point["learning_rate"] not in (weak.point["learning_rate"], strong.point["learning_rate"])
    checkpoints = config.output / ".checkpoints"
    weights = [next((checkpoints / str(r.number)).rglob("*model_states.pt")) for r in (weak, strong, child)]
    own, taken_over, now = (torch.load(file, weights_only=False)["module"]["student.items.weight"] for file in weights)
    assert (now - taken_over).norm() < (now - own).norm()
    best = best_of(outcomes_of(records, config))
    chosen = best_config(config, base_config(config), best).model_copy(update={"output": tmp_path / "student"})
    student = train(chosen, weights_of(config, best))
    assert read_manifest(student).metrics["validation_ndcg@20"] == pytest.approx(best.values[0], abs=1e-6)


def watch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the groups that are handed to processes from now on."""
    sizes: list[int] = []
    suggest = OrderedSearcher.suggest

    def watched(searcher: OrderedSearcher, trial_id: str) -> object:
        found = suggest(searcher, trial_id)
        sizes.extend([len(found["members"])] if isinstance(found, dict) else [])
        return found

    monkeypatch.setattr(OrderedSearcher, "suggest", watched)
    return sizes


@pytest.mark.engine
def test_a_point_that_training_refuses_fails_alone(ray_local, dataset, new_store, tmp_path):
    search = SearchConfig(space={"model.hidden_size": Domain(low=4, high=6, integer=True)}, scheduler="none")
    config = small(dataset, None, tmp_path, new_store(), trials=6, together=6, search=search)
    model = ModelConfig(hidden_size=4, num_heads=2, num_layers=1, max_length=5)
    records = run(config.model_copy(update={"train": config.train.model_copy(update={"model": model, "epochs": 1})}))
    reasons = {record.point["model.hidden_size"]: record.reason for record in records}
    assert reasons == {4: "", 5: "`model`: num_heads 2 must divide hidden_size 5", 6: ""}


@pytest.mark.engine
def test_trials_that_train_together_end_as_they_do_alone(ray_local, dataset, labels, new_store, tmp_path, monkeypatch):
    space = space_of(small(dataset, labels, tmp_path)) | {"model.dropout": Domain(values=(0.0, 0.5))}
    settings = {"search": SearchConfig(space=space, scheduler="none"), "trials": 3, "seeds": 2}
    alone = run(small(dataset, labels, tmp_path / "alone", new_store(), **settings))
    sizes = watch_sizes(monkeypatch)
    together = run(small(dataset, labels, tmp_path / "together", new_store(), **settings, together=4))
    assert sizes == [4, 2]
    assert [(r.point, r.seed, r.state) for r in together] == [(r.point, r.seed, r.state) for r in alone]
    for one, other in zip(together, alone, strict=True):
        assert [at["loss"] for at in one.history] == pytest.approx([at["loss"] for at in other.history], rel=1e-3)


@pytest.mark.engine
def test_of_those_that_train_together_single_ones_stop(ray_local, dataset, labels, new_store, tmp_path):
    search = SearchConfig(algorithm="optuna", objectives=("ndcg@20", "latency"))
    settings = {"trials": 8, "together": 4, "concurrent": 1, "search": search}
    settings["asha"] = AshaConfig(max_epochs=4, grace=1, reduction=2)
    config = small(dataset, labels, tmp_path, new_store(), **settings)
    output = tune(config)
    with (output / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["state"] for row in rows[:4]} == {"complete"}
    assert "stopped early" in {row["state"] for row in rows[4:]}
    assert len({row["epochs"] for row in rows[4:]}) > 1
    assert all(float(row["latency"]) > 0 for row in rows)
    more = config.model_copy(update={"start_from": output, "output": tmp_path / "more", "trials": 2, "together": 1})
    records = run(more)
    assert records[0].point["learning_rate"] == config.train.learning_rate
    best = max(rows[1:], key=lambda row: float(row["validation_ndcg@20"]))
    assert records[1].point == {path: float(best[path]) for path in records[1].point}


@pytest.mark.engine
def test_a_trial_with_several_workers_reports_through_ray_train(ray_local, dataset, labels, new_store, tmp_path):
    config = small(dataset, labels, tmp_path, new_store(), trials=1)
    workers = config.train.workers.model_copy(update={"count": 2, "cpus": 0.5})
    config = config.model_copy(update={"train": config.train.model_copy(update={"workers": workers})})
    (trial,) = run(config)
    assert (trial.state, trial.reason) == ("complete", "")
    assert [at["epoch"] for at in trial.history] == [1, 2, 3, 4]


@pytest.mark.engine
def test_a_trial_larger_than_the_cluster_is_refused(ray_local, dataset, labels, new_store, tmp_path):
    with pytest.raises(ConfigError, match="one trial's workers ask for 64 CPU, the cluster has 2"):
        tune(small(dataset, labels, tmp_path, new_store(), cpus_per_trial=64))
    config = small(dataset, labels, tmp_path, new_store())
    workers = config.train.workers.model_copy(update={"count": 4})
    config = config.model_copy(update={"train": config.train.model_copy(update={"workers": workers})})
    with pytest.raises(ConfigError, match=r"ask for 4 CPU, the cluster has 2: lower --train\.workers\.count"):
        tune(config.model_copy(update={"output": tmp_path / "several"}))
    assert lines(tmp_path / "several") == 0


@pytest.mark.engine
def test_a_tracking_server_that_is_away_stops_no_search(ray_local, dataset, new_store, tmp_path, capsys):
    away = TrackingConfig(uri=f"http://127.0.0.1:{free_port()}", journal=tmp_path / "journal")
    config = small(dataset, None, tmp_path, away)
    output = tune(config)
    assert read_manifest(output, "tune").counts == {"trials": 2, "failed": 0}
    assert (output / "report.html").is_file()
    assert "no server answers there): the same command registers it later" in capsys.readouterr().out
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


def test_an_output_that_holds_something_else_is_refused_before_the_search(dataset, labels, tmp_path, new_store):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="did not make"):
            tune(small(dataset, labels, tmp_path, new_store(), overwrite=overwrite))
    assert (tmp_path / "search" / "mine.txt").read_text() == "mine"


def test_the_command_ends_with_one_line_and_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tune", "--train.dataset", str(tmp_path / "none"), "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run `dllm2rec prepare" in line
