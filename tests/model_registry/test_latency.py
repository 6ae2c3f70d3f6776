from pathlib import Path

from model_registry.latency import request_latency
from student_serve.recommender import Recommender
from tests.conftest import MakeStudent


def test_percentiles_are_ordered_and_in_milliseconds(make_student: MakeStudent) -> None:
    directory: Path = make_student()
    median, high = request_latency(Recommender(directory), requests=100)
    assert 0.001 < median <= high < 10_000
