import csv
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import pytest
import yaml
from matplotlib import pyplot

from cluster.config import load_config
from cluster.storage import Manifest
from student_train.config import TrainConfig
from tests.tune.records import history, record
from tune.best import Champion
from tune.config import Domain, SearchConfig, TuneConfig
from tune.search_report import write_report

SPACE = {
    "distillation.lam": Domain(low=0.1, high=2.0),
    "distillation.ed_weight": Domain(low=0.1, high=6.0, log=True),
    "model.name": Domain(values=("sasrec", "gru4rec")),
}
TABLES = {"trials.csv", "best_config.yaml", "report.html"}
PICTURES = {"champion.png", "best_so_far.png", "points.png", "importance.png"}


def manifest(ndcg: float) -> Manifest:
    metrics = {f"test_{name}{end}": ndcg for name in ("hr@20", "ndcg@20") for end in ("", "_low", "_high")}
    about = {"verb": "train", "version": "0", "created": datetime.now(UTC), "fingerprint": "f"}
    return Manifest(config={}, inputs={}, counts={}, metrics=metrics, **about)


def trials(space: dict[str, Domain], count: int):
    for at in range(count):
        point = {name: domain.ends()[at % 2] for name, domain in space.items()}
        measures = {"size": float(at % 3)}
        yield record(at, 0.1 * at, 0.05, point=point, state=("complete", "stopped early")[at % 2], measures=measures)


@pytest.fixture
def best(dataset: Path) -> TrainConfig:
    return TrainConfig(dataset=dataset, batch_size=64, learning_rate=0.01)


def written(tmp_path, space, records, best, **search) -> set[str]:
    config = TuneConfig(output=tmp_path, train=best, search=SearchConfig(space=space, **search))
    files = write_report(config, space, records, Champion(best, manifest(0.3), manifest(0.2)))
    assert all(file.stat().st_size > 0 for file in files)
    return {file.name for file in files}


def test_tables_and_pictures_are_written(tmp_path, best):
    records = list(trials(SPACE, 6))
    assert written(tmp_path, SPACE, records, best) == TABLES | PICTURES | {"lam_ed_weight.png"}
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_ndcg@20"]) for row in rows] == [trial.best("ndcg@20") for trial in records]
    assert [row["state"] for row in rows[:2]] == ["complete", "stopped early"]
    assert [float(row["distillation.lam"]) for row in rows[:2]] == [0.1, 2.0]
    assert [float(row["best_epoch"]) for row in rows[:2]] == [2, 1]
    page = (tmp_path / "report.html").read_text()
    assert "To beat there: transitions HR@20 1.0000 NDCG@20" in page
    assert all(f'src="{picture}"' in page for picture in PICTURES)
    assert load_config(TrainConfig, "train", ["train"], ["--config", str(tmp_path / "best_config.yaml")]) == best
    assert set(yaml.safe_load((tmp_path / "best_config.yaml").read_text())) == {"train"}


def test_the_style_of_pictures_that_follow_stays_and_none_is_left_open(tmp_path, best):
    before, others = dict(matplotlib.rcParams), pyplot.get_fignums()
    written(tmp_path, SPACE, list(trials(SPACE, 6)), best)
    assert {name: value for name, value in matplotlib.rcParams.items() if before[name] != value} == {}
    assert pyplot.get_fignums() == others


def test_every_seed_is_a_row(tmp_path, best):
    space = {"distillation.lam": SPACE["distillation.lam"]}
    several = record(0, 0.1, point={"distillation.lam": 0.5}, histories={3: history(0.1), 4: history(0.3, 0.2)})
    written(tmp_path, space, [several, record(1, point={"distillation.lam": 1.0}, reason="loss is nan")], best)
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["seed"], row["validation_ndcg@20"], row["reason"]) for row in rows] == [
        ("0", "3", "0.1", ""),
        ("0", "4", "0.3", ""),
        ("1", "", "", "loss is nan"),
    ]


def test_two_objectives_get_their_front(tmp_path, best):
    search = {"algorithm": "optuna", "objectives": ("ndcg@20", "size")}
    space = {"model.name": SPACE["model.name"]}
    assert written(tmp_path, space, list(trials(space, 6)), best, **search) == TABLES | PICTURES | {"front.png"}


def test_a_single_trial_and_failed_ones_are_enough_for_a_report(tmp_path, best):
    space = {"distillation.lam": Domain(values=(0.5,)), "distillation.ed_weight": Domain(values=(1, 2, 4))}
    point = {"distillation.lam": 0.5, "distillation.ed_weight": 2}
    records = [record(0, point=point), record(1, 0.3, point=point)]
    assert written(tmp_path, space, records, best) == TABLES | (PICTURES - {"importance.png"})
