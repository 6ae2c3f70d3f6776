import csv

import yaml

from cluster.config import load_config
from student_train.config import TrainConfig
from tune.report import Outcome, best_point, write_report


def outcome(ndcg: float, lam: float, seed: int = 0, state: str = "complete") -> Outcome:
    return Outcome(
        point={"lam": lam, "learning_rate": 0.01},
        seed=seed,
        state=state,
        epochs=9,
        best_epoch=7,
        ndcg=ndcg,
        hr=2 * ndcg,
        seconds=1.5,
    )


def test_the_best_point_has_the_largest_figure():
    point, figure = best_point([outcome(0.1, 0.2), outcome(0.3, 0.4), outcome(0.2, 0.6)], seeds=1)
    assert point == {"lam": 0.4, "learning_rate": 0.01}
    assert figure == 0.3


def test_the_mean_over_seeds_counts_not_the_luckiest_seed():
    outcomes = [outcome(0.9, 0.2, 0), outcome(0.1, 0.2, 1), outcome(0.6, 0.4, 0), outcome(0.6, 0.4, 1)]
    point, figure = best_point(outcomes, seeds=2)
    assert point["lam"] == 0.4
    assert figure == 0.6


def test_a_point_with_a_failed_seed_is_passed_over_unless_all_have_one():
    whole = [outcome(0.5, 0.4, 0), outcome(0.5, 0.4, 1)]
    assert best_point([outcome(0.9, 0.2), *whole], seeds=2)[0]["lam"] == 0.4
    assert best_point([outcome(0.9, 0.2), outcome(0.5, 0.4)], seeds=2)[0]["lam"] == 0.2


def test_the_table_the_config_and_the_picture_are_written(tmp_path):
    outcomes = [outcome(0.1, 0.2), outcome(0.3, 0.4, state="stopped early")]
    best = TrainConfig(batch=64, learning_rate=0.01)
    write_report(tmp_path, outcomes, best)
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_ndcg@20"]) for row in rows] == [0.1, 0.3]
    assert [row["state"] for row in rows] == ["complete", "stopped early"]
    assert [float(row["lam"]) for row in rows] == [0.2, 0.4]
    assert load_config(TrainConfig, "train", ["train"], ["--config", str(tmp_path / "best_config.yaml")]) == best
    assert set(yaml.safe_load((tmp_path / "best_config.yaml").read_text())) == {"train"}
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")
