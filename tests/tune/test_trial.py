import pytest
from pydantic import ValidationError

from student_train.config import TrainConfig
from student_train.loop import Progress
from tune.trial import point_config, report_of

POINT = {"lam": 0.7, "ed_weight": 2.0, "learning_rate": 0.01, "seed": 5}


def test_a_point_changes_its_parameters_and_nothing_else():
    base = TrainConfig(batch=64)
    config = point_config(base, POINT)
    assert (config.distillation.lam, config.distillation.ed_weight) == (0.7, 2.0)
    assert (config.learning_rate, config.seed) == (0.01, 5)
    weights = base.distillation
    back = {"lam": weights.lam, "ed_weight": weights.ed_weight, "learning_rate": base.learning_rate, "seed": base.seed}
    assert point_config(config, back) == base


def test_a_value_that_training_refuses_is_refused():
    with pytest.raises(ValidationError, match="learning_rate"):
        point_config(TrainConfig(), {"learning_rate": 0.0})


def progress(*ndcg: float) -> Progress:
    made = Progress()
    for value in ndcg:
        made.epoch += 1
        made.record({"ndcg@20": value, "hr@20": 2 * value, "loss": 1.0}, {})
    return made


def test_a_report_holds_the_newest_and_the_best_figures():
    report = report_of(progress(0.1, 0.3, 0.2), TrainConfig(epochs=10, patience=5))
    assert report["validation_ndcg@20"] == 0.2
    assert report["best_validation_ndcg@20"] == 0.3
    assert report["best_validation_hr@20"] == 0.6
    assert (report["epoch"], report["best_epoch"]) == (3, 2)


def test_a_training_is_complete_at_its_last_epoch_or_when_its_patience_ends():
    assert not report_of(progress(0.3, 0.2), TrainConfig(epochs=3, patience=2))["complete"]
    assert report_of(progress(0.3, 0.2, 0.4), TrainConfig(epochs=3, patience=2))["complete"]
    assert report_of(progress(0.3, 0.2, 0.1), TrainConfig(epochs=9, patience=2))["complete"]
