"""A training that is recorded where no server answers: the student is there, and what to do later is said."""

from pathlib import Path

import pytest

from cluster.config import TrackingConfig
from student_train.config import TrainConfig
from student_train.tracked import tracked
from tests.conftest import MakeStudent
from tests.mlflow_server import free_port


def test_a_server_that_is_away_stops_no_training(
    make_student: MakeStudent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = TrackingConfig(uri=f"http://127.0.0.1:{free_port()}")
    config = TrainConfig(register_as="shop", tracking=tracking, output=tmp_path / "student")
    student = tracked(config, {"dataset": "abc"}, lambda live: make_student(), in_process=True)
    shown = capsys.readouterr()
    line = shown.out.splitlines()[-1]
    assert "not registered (MLflow at --tracking.uri http://127.0.0.1" in line
    assert line.endswith(f"later, run `dllm2rec register --student {student} --name shop`")
    assert "dllm2rec track" in shown.out + shown.err
