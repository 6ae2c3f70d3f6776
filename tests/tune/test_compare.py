"""A whole comparison on Ray, stopped and gone on with."""

import csv
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cluster.config import TrackingConfig
from cluster.storage import read_manifest
from tests.tune.test_compare_runs import config
from tune import compare as verb
from tune.compare_report import RANKING
from tune.compare_runs import Result, train_one
from tune.track import track
from tune.track_config import TrackConfig

pytestmark = pytest.mark.engine

QUICK = {"learning_rate": 0.01, "batch_size": 64, "epochs": 2}


@pytest.mark.usefixtures("ray_local")
def test_a_comparison_goes_on_where_it_was_stopped(
    dataset: Path, labels: Path, tmp_path: Path, new_store, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    tracking: TrackingConfig = new_store()
    base = config(dataset, labels)
    settings = base.model_copy(
        update={
            "models": {"SASRec": {"model": {"name": "sasrec"}}},
            "strategies": {"soft": {}, "soft without ranking": {"distillation": {"lam": 0.0}}},
            "seeds": (0, 1),
            "train": base.train.model_copy(update=QUICK),
            "output": tmp_path / "comparison",
            "tracking": tracking,
        }
    )
    stopped = []

    def save_two(folder, run, result) -> None:
        if len(stopped) == 2:
            raise KeyboardInterrupt
        stopped.append(run.name)
        saved(folder, run, result)

    saved = verb.save
    monkeypatch.setattr(verb, "save", save_two)
    with pytest.raises(KeyboardInterrupt):
        verb.compare(settings)
    assert not (settings.output / "manifest.json").exists()
    monkeypatch.setattr(verb, "save", saved)
    kept = {file.name: file.read_bytes() for file in (settings.output / "runs").glob("*.json")}
    assert len(kept) == 2

    verb.compare(settings)
    printed = capsys.readouterr().out
    assert "6 trainings, 2 of them done already" in printed
    assert "history items not filtered" in printed
    assert read_manifest(settings.output, "compare").counts == {"trainings": 6}
    for name, content in kept.items():
        assert (settings.output / "runs" / name).read_bytes() == content
    rows = list(csv.DictReader((settings.output / "results.csv").open()))
    assert len(rows) == 12
    assert list(rows[0])[:6] == ["student", "loss", "strategy", "embedding", "seed", "split"]
    assert list(rows[0])[6:] == [*(name.upper() for name in RANKING), "epochs", "seconds"]
    report = (settings.output / "report.md").read_text()
    assert "OVERLAP@20" in report
    assert re.search(r"Item transitions, counted: HR@20 [01]\.\d+, NDCG@20 [01]\.\d+", report)
    assert "soft without ranking" in report
    for picture in ("gains.png", "overlap.png", "ablation.png"):
        assert (settings.output / picture).stat().st_size > 5000
    runs = MlflowClient(tracking.uri).search_runs(["1"], max_results=100)
    assert sum("mlflow.parentRunId" in run.data.tags for run in runs) == 6
    track(TrackConfig(directories=(settings.output,), tracking=tracking))
    assert len(MlflowClient(tracking.uri).search_runs(["1"], max_results=100)) == len(runs) == 7


def test_a_training_of_a_comparison_is_that_of_the_verb_train(dataset: Path, labels: Path) -> None:
    base = config(dataset, labels).train.model_copy(update=QUICK)
    first, second = train_one(base, "key", 1), train_one(base, "key", 1)
    assert isinstance(first, Result)
    timed = {"train_seconds", "test_seconds", "train_rows_per_second"}
    assert {k: v for k, v in first.metrics.items() if k not in timed} == {
        k: v for k, v in second.metrics.items() if k not in timed
    }
    assert {"test_hr@20", "validation_ndcg@20", "test_overlap@20", "test_hr@20_low"} <= set(first.metrics)
