"""How far the teacher is followed, judged by transitions between items and by the student as it catches up."""

import pytest

from student_train.config import DistillationConfig, TrainConfig
from student_train.loop import teacher_weight


def config(share: float) -> TrainConfig:
    return TrainConfig(distillation=DistillationConfig(teacher_threshold=share))


@pytest.mark.parametrize("teacher", [0.3, 0.2, 0.1])
def test_a_teacher_that_reaches_the_share_is_followed_in_full(teacher: float) -> None:
    assert teacher_weight(config(0.5), {"ndcg@20": teacher}, {}, {"ndcg@20": 0.2}) == 1.0


def test_a_worse_teacher_is_followed_by_the_square_of_what_it_reaches() -> None:
    assert teacher_weight(config(0.5), {"ndcg@20": 0.05}, {}, {"ndcg@20": 0.2}) == pytest.approx(0.25)
    assert teacher_weight(config(1.0), {"ndcg@20": 0.05}, {}, {"ndcg@20": 0.2}) == pytest.approx(0.0625)


def test_transitions_judge_it_before_the_student_can() -> None:
    assert teacher_weight(config(1.0), {"ndcg@20": 0.05}, {"ndcg@20": 0.1}, {}) == pytest.approx(0.25)
    assert teacher_weight(config(1.0), {"ndcg@20": 0.05}, {"ndcg@20": 0.1}, {"ndcg@20": 0.02}) == pytest.approx(0.25)
    assert teacher_weight(config(1.0), {"ndcg@20": 0.05}, {"ndcg@20": 0.1}, {"ndcg@20": 0.2}) == pytest.approx(0.0625)


def test_share_zero_follows_it_whatever_it_is_worth() -> None:
    assert teacher_weight(config(0.0), {"ndcg@20": 0.001}, {"ndcg@20": 0.2}, {"ndcg@20": 0.2}) == 1.0


def test_without_figures_of_its_own_it_is_followed_in_full() -> None:
    assert teacher_weight(config(0.5), {}, {"ndcg@20": 0.2}, {"ndcg@20": 0.2}) == 1.0


def test_short_lists_are_judged_by_the_largest_cutoff_they_have() -> None:
    best = {"ndcg@1": 0.1, "ndcg@10": 0.2, "ndcg@20": 0.3}
    assert teacher_weight(config(1.0), {"ndcg@1": 0.1, "ndcg@10": 0.1}, {}, best) == pytest.approx(0.25)
