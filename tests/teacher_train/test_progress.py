import math

from teacher_train.progress import Progress


def test_patience_counts_evaluations_without_gain():
    progress = Progress()
    assert [progress.evaluated(1.0, loss) for loss in (2.0, 1.5, 1.6, 1.5, 1.4)] == [True, True, False, False, True]
    assert progress.best == 1.4
    assert progress.without_gain == 0


def test_it_is_taken_away_as_it_was_left(tmp_path):
    progress = Progress(rows=5, step=3, tokens=90, seconds=1.5)
    progress.leave(tmp_path)
    taken = Progress.take(tmp_path)
    assert taken == progress
    assert taken.speed == 60
    assert not list(tmp_path.iterdir())
    assert math.isinf(taken.metrics()["validation_loss"])
