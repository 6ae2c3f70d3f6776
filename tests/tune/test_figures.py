from student_train.config import StudentConfig, TrainConfig
from student_train.loop import Progress
from student_train.student import Student
from tune.figures import measured, report_of


def progress(*ndcg: float) -> Progress:
    made = Progress()
    for value in ndcg:
        made.epoch += 1
        made.record({"ndcg@20": value, "hr@20": 2 * value, "loss": 1.0}, {})
    return made


def test_a_report_holds_every_evaluation():
    report = report_of(progress(0.1, 0.3, 0.2), TrainConfig(epochs=10, patience=5))
    assert [at["ndcg@20"] for at in report["history"]] == [0.1, 0.3, 0.2]
    assert [at["epoch"] for at in report["history"]] == [1, 2, 3]


def test_a_training_is_complete_at_its_last_epoch_or_when_its_patience_ends():
    assert not report_of(progress(0.3, 0.2), TrainConfig(epochs=3, patience=2))["complete"]
    assert report_of(progress(0.3, 0.2, 0.4), TrainConfig(epochs=3, patience=2))["complete"]
    assert report_of(progress(0.3, 0.2, 0.1), TrainConfig(epochs=9, patience=2))["complete"]


def test_size_is_that_of_the_student_and_latency_is_some_time():
    config = TrainConfig(shape=StudentConfig(width=8, heads=1))
    found = measured(config, 20, ("size", "latency"))
    assert found["size"] == sum(p.numel() for p in Student("sasrec", config.shape, 20).parameters())
    assert found["latency"] > 0
    assert measured(config, 20, ()) == {}
