"""How far the teacher is followed as the student catches up with it."""

import pytest

from student_train.config import DistillationConfig, TrainConfig
from student_train.loop import Progress, trust


def config(share: float) -> TrainConfig:
    return TrainConfig(distillation=DistillationConfig(trust=share))


def after(ndcg: float) -> Progress:
    progress = Progress(epoch=1)
    progress.record({"ndcg@20": ndcg}, {})
    return progress


@pytest.mark.parametrize("teacher", [0.3, 0.2, 0.1])
def test_a_teacher_that_reaches_the_share_is_followed_in_full(teacher: float) -> None:
    assert trust(config(0.5), {"ndcg@20": teacher}, after(0.2)) == 1.0


def test_a_worse_teacher_is_followed_by_the_square_of_what_it_reaches() -> None:
    assert trust(config(0.5), {"ndcg@20": 0.05}, after(0.2)) == pytest.approx(0.25)
    assert trust(config(1.0), {"ndcg@20": 0.05}, after(0.2)) == pytest.approx(0.0625)


def test_share_zero_follows_it_whatever_it_is_worth() -> None:
    assert trust(config(0.0), {"ndcg@20": 0.001}, after(0.2)) == 1.0


def test_without_evidence_it_is_followed_in_full() -> None:
    assert trust(config(0.5), {}, after(0.2)) == 1.0
    assert trust(config(0.5), {"ndcg@20": 0.01}, Progress()) == 1.0


def test_the_students_best_counts_not_its_last() -> None:
    progress = after(0.2)
    progress.record({"ndcg@20": 0.1}, {})
    assert trust(config(1.0), {"ndcg@20": 0.1}, progress) == pytest.approx(0.25)


def test_short_lists_are_judged_by_the_largest_cutoff_they_have() -> None:
    progress = Progress(epoch=1)
    progress.record({"ndcg@1": 0.1, "ndcg@10": 0.2, "ndcg@20": 0.3}, {})
    assert trust(config(1.0), {"ndcg@1": 0.1, "ndcg@10": 0.1}, progress) == pytest.approx(0.25)
