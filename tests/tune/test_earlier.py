from pathlib import Path

import pytest

from cluster.errors import ConfigError
from student_train.config import TrainConfig
from tests.tune.records import record
from tune.config import Domain
from tune.earlier import TAKEN, starting_points
from tune.journal import Journal, Record

SPACE = {"learning_rate": Domain(low=1e-4, high=1e-2), "student": Domain(values=("sasrec", "gru4rec"))}
OWN = {"learning_rate": 0.003, "student": "sasrec"}


def searched(directory: Path, *records: Record) -> Path:
    journal = Journal(directory, {})
    for made in records:
        journal.append(made)
    journal.close()
    return directory


def starts(directory: Path | None) -> list[dict[str, object]]:
    base = TrainConfig(learning_rate=0.003)
    return [dict(point) for point in starting_points(base, SPACE, "ndcg@20", directory)]


def test_the_best_points_come_after_ones_own(tmp_path):
    made = [record(at, at / 10, point={"learning_rate": (at + 1) / 1000}) for at in range(8)]
    found = starts(searched(tmp_path, *made))
    assert found[0] == OWN
    assert [point["learning_rate"] for point in found[1:]] == [0.008, 0.007, 0.006, 0.005, 0.004]
    assert len(found) == TAKEN + 1
    assert {point["student"] for point in found} == {"sasrec"}


def test_seeds_of_a_point_count_by_their_median(tmp_path):
    lucky, steady = {"learning_rate": 0.001}, {"learning_rate": 0.002}
    made = [record(0, 0.9, point=lucky), record(1, 0.1, point=lucky), record(2, 0.1, point=lucky)]
    made += [record(3 + seed, 0.2, point=steady) for seed in range(3)]
    assert [point["learning_rate"] for point in starts(searched(tmp_path, *made))] == [0.003, 0.002, 0.001]


def test_what_the_space_does_not_hold_is_left_out(tmp_path):
    outside = record(0, 0.9, point={"learning_rate": 0.5})
    inside = record(1, 0.1, point={"learning_rate": 0.001, "distillation.lam": 0.3})
    assert starts(searched(tmp_path / "both", outside, inside)) == [OWN, OWN | {"learning_rate": 0.001}]
    with pytest.raises(ConfigError, match="none of its points lies in this search's space"):
        starts(searched(tmp_path / "outside", outside))


def test_without_an_earlier_search_only_ones_own_is_there(tmp_path):
    assert starts(None) == [OWN]
    with pytest.raises(ConfigError, match=r"`start_from` = .* holds no search: give the output directory"):
        starts(tmp_path)
