import pytest

from teacher_train.loop import schedule


def test_learning_rate_rises_then_falls_to_zero():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert schedule(100, 100, 0.1) == pytest.approx(0)


def test_a_training_of_one_step_has_a_learning_rate():
    assert schedule(0, 1, 0.0) == 1
