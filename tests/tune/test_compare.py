"""Comparisons: which trainings there are, what is done already, and a whole one on Ray that is stopped and resumed."""

import csv
import os
import re
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from cluster.config import TrackingConfig
from cluster.errors import ConfigError, UserError
from cluster.storage import read_manifest
from student_train.config import TrainConfig
from tests.tune.records import record
from tune import compare as verb
from tune.compare import Cell, check_results, enter, grid
from tune.compare_config import CompareConfig
from tune.compare_report import RANKING, loss_name, sides
from tune.journal import TRIALS_FILE, Journal, read_journal
from tune.search import base_config
from tune.track import track
from tune.track_config import TrackConfig

MODELS = {"SASRec": {"model": {"name": "sasrec"}}, "DROS": {"model": {"name": "dros"}, "loss": {"name": "bce"}}}
STRATEGIES = {"soft": {}, "official": {"distillation": {"strategy": "dllm2rec-official", "ed_weight": 0.0}}}


def config(dataset: Path, labels: Path | None, **changes: Any) -> CompareConfig:
    model = {"hidden_size": 8, "num_heads": 1, "num_layers": 1, "max_length": 5}
    train = {"dataset": dataset, "labels": labels, "model": model, "distillation": {"top_k": 5}}
    settings = {"models": MODELS, "strategies": STRATEGIES, "train": train}
    return CompareConfig.model_validate(settings | changes)


def cells_of(settings: CompareConfig) -> list[Cell]:
    return list(grid(settings, base_config(settings)))


def test_every_student_runs_plain_and_with_every_strategy_and_seed(dataset: Path, labels: Path) -> None:
    cells = cells_of(config(dataset, labels, seeds=(3, 4)))
    assert len(cells) == len({cell.key for cell in cells}) == 2 * 3 * 2
    plain = next(cell for cell in cells if (cell.model, cell.strategy) == ("DROS", "plain"))
    assert (plain.config.distillation.lam, sides(plain.config), loss_name(plain.config)) == (0.0, "none", "bce+dro")
    official = next(cell for cell in cells if cell.strategy == "official")
    assert (sides(official.config), loss_name(official.config)) == ("none", "softmax")
    assert (official.config.distillation.top_k, official.config.model.hidden_size) == (5, 8)
    assert {cell.config.seed for cell in cells} == {3, 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": {"soft": {"distillation": {"strategie": "soft"}}}}, "unknown key `distillation.strategie`"),
        ({"strategies": {"soft": {"distillation": {"lam": -1}}}}, "compare, SASRec, soft: `distillation.lam` = -1"),
        ({"strategies": {"long": {"distillation": {"top_k": 21}}}}, "holds lists of 20"),
        ({"strategies": {"one": {"distillation": {"embedding": "input"}}}}, r"set `model\.output` to separate"),
        ({"models": {"A": {"learning_rate": {"x": 1}}}}, "compare, A, plain: `learning_rate`"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_training(
    dataset: Path, labels: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        cells_of(config(dataset, labels, **changes))


def test_a_comparison_needs_labels(dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"`compare.train.labels` is missing"):
        verb.compare(config(dataset, None))


@pytest.mark.parametrize("ignored", [{"seed": 1}, {"resources": {"workers": 2}}, {"max_failures": 1}, {"output": "x"}])
def test_settings_of_train_without_effect_are_refused(dataset: Path, labels: Path, ignored: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(ignored))} has no effect here: "):
        config(dataset, labels, train={"dataset": dataset, "labels": labels} | ignored)


def test_a_training_is_done_once_and_again_where_its_settings_changed(
    dataset: Path, labels: Path, tmp_path: Path
) -> None:
    settings = config(dataset, labels, seeds=(0,))
    twice = settings.model_copy(update={"strategies": STRATEGIES | {"soft again": {}}})
    with closing(Journal(tmp_path, "compare", {})) as journal:
        places = enter(journal, cells_of(twice))
        assert sorted(journal.records) == list(range(6))
        for number in range(5):
            journal.append(journal.records[number].model_copy(update={"state": "complete"}))
        journal.append(journal.records[5].model_copy(update={"state": "failed"}))
    changed = TrainConfig.model_validate(settings.train.model_dump() | {"learning_rate": 0.5})
    with closing(Journal(tmp_path, "compare", {})) as journal:
        again = enter(journal, cells_of(settings))
        assert {key: again[key] for key in places if places[key] < 5} == {k: n for k, n in places.items() if n < 5}
        assert [one.number for one in journal.open] == [6]
    with closing(Journal(tmp_path, "compare", {})) as journal:
        enter(journal, cells_of(settings.model_copy(update={"train": changed})))
        assert [one.number for one in journal.open] == list(range(7, 13))


def test_a_training_that_failed_is_named(dataset: Path, labels: Path) -> None:
    cell = cells_of(config(dataset, labels))[0]
    with pytest.raises(UserError, match="SASRec, plain, seed 0 failed: loss is nan"):
        check_results({cell: record(0, reason="loss is nan")})


@pytest.mark.engine
@pytest.mark.usefixtures("ray_local")
def test_a_comparison_resumes_where_it_was_stopped(
    dataset: Path, labels: Path, tmp_path: Path, new_store: Callable[[], TrackingConfig], monkeypatch, capsys
) -> None:
    tracking = new_store()
    quick = {"learning_rate": 0.01, "batch_size": 64, "epochs": 2}
    base = config(dataset, labels)
    settings = base.model_copy(
        update={
            "models": {"SASRec": {"model": {"name": "sasrec"}}},
            "strategies": {"soft": {}, "soft without ranking": {"distillation": {"lam": 0.0}}},
            "seeds": (0, 1),
            "train": base.train.model_copy(update=quick),
            "output": tmp_path / "comparison",
            "tracking": tracking,
        }
    )
    append = Journal.append

    def append_two(journal: Journal, one: Any) -> None:
        append(journal, one)
        if len(journal.ended) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", append_two)
        with pytest.raises(UserError, match=r"stopped after [23] of 6 trials: the same command resumes"):
            verb.compare(settings)
    assert not (settings.output / "manifest.json").exists()
    kept = read_journal(settings.output)[1]
    capsys.readouterr()

    verb.compare(settings)
    printed = capsys.readouterr().out
    assert f"6 trainings, {len(kept)} of them done already" in printed
    assert "history items not filtered" in printed
    assert read_manifest(settings.output, "compare").counts == {"trainings": 6}
    ended = {one.number: one for one in read_journal(settings.output)[1]}
    assert len(ended) == 6 and [ended[one.number] for one in kept] == kept
    assert all(one.measures["epochs"] == one.epoch == 2 for one in ended.values())
    rows = list(csv.DictReader((settings.output / "results.csv").open()))
    assert len(rows) == 12
    names = ["model", "loss", "strategy", "embedding", "seed", "split", *(name.upper() for name in RANKING)]
    assert list(rows[0]) == [*names, "epochs", "seconds"]
    report = (settings.output / "report.md").read_text()
    assert "OVERLAP@20" in report
    assert re.search(r"To beat, transitions: HR@20 [01]\.\d+, NDCG@20 [01]\.\d+", report)
    page = (settings.output / "report.html").read_text()
    for picture in ("gains.png", "overlap.png", "ablation.png"):
        assert (settings.output / picture).stat().st_size > 5000
        assert picture in page
    runs = MlflowClient(tracking.uri).search_runs(["1"], max_results=100)
    assert sum("mlflow.parentRunId" in run.data.tags for run in runs) == 6
    track(TrackConfig(directories=(settings.output,), tracking=tracking))
    assert len(MlflowClient(tracking.uri).search_runs(["1"], max_results=100)) == len(runs) == 7
    before = (settings.output / TRIALS_FILE).read_bytes()
    verb.compare(settings)
    assert (settings.output / TRIALS_FILE).read_bytes() == before
