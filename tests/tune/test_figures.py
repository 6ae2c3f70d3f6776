from pathlib import Path

from student_train.config import ModelConfig, TrainConfig
from student_train.loop import TrainerState
from student_train.models.student import Student
from tune.figures import Watch, measured


def progress(*ndcg: float) -> TrainerState:
    made = TrainerState()
    for value in ndcg:
        made.epoch += 1
        made.record({"ndcg@20": value, "hr@20": 2 * value, "loss": 1.0}, {})
    return made


def watch(bars: dict[int, float] | None = None, **settings: int) -> Watch:
    return Watch({"number": 4, "bars": bars or {}}, TrainConfig(**settings), "ndcg@20", {"size": 9.0})


def test_a_report_holds_every_evaluation():
    report = watch(epochs=10, patience=5).report(progress(0.1, 0.3, 0.2))
    assert (report["number"], report["measures"], report["ended"]) == (4, {"size": 9.0}, False)
    assert [at["ndcg@20"] for at in report["history"]] == [0.1, 0.3, 0.2]
    assert [at["epoch"] for at in report["history"]] == [1, 2, 3]


def test_a_training_is_complete_at_its_last_epoch_or_when_its_patience_ends():
    assert not watch(epochs=3, patience=2).report(progress(0.3, 0.2))["complete"]
    assert watch(epochs=3, patience=2).report(progress(0.3, 0.2, 0.4))["complete"]
    assert watch(epochs=9, patience=2).report(progress(0.3, 0.2, 0.1))["complete"]


def test_below_its_bar_it_ends_without_being_complete():
    report = watch({2: 0.4}, epochs=9, patience=9).report(progress(0.3, 0.2))
    assert report["ended"] and not report["complete"]
    assert not watch({2: 0.3}, epochs=9, patience=9).report(progress(0.3, 0.2))["ended"]


def test_size_is_that_of_the_student_and_latency_is_some_time(dataset):
    config = TrainConfig(dataset=dataset, model=ModelConfig(hidden_size=8, num_heads=1))
    found = measured(config, ("size", "latency"))
    assert found["size"] == sum(p.numel() for p in Student("sasrec", config.model, 30).parameters())
    assert found["latency"] > 0
    assert measured(TrainConfig(dataset=Path("none")), ()) == {}
