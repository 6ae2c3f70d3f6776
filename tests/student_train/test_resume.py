"""``train`` after its process died: the same command resumes, any other is told what differs."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.errors import OutputError
from cluster.storage import MANIFEST_FILE, read_manifest
from cluster.unfinished import NEWEST_FILE
from student_train.config import ModelConfig, TrainConfig
from student_train.train import train

SMALL = ModelConfig(hidden_size=16, num_heads=2, max_length=5, dropout=0.1)


def config(dataset: Path, output: Path, **changes: object) -> TrainConfig:
    settings = {"dataset": dataset, "output": output, "model": SMALL, "batch_size": 16, "patience": 20, "epochs": 20}
    return TrainConfig(**(settings | {"checkpoint_seconds": 0} | changes))


def start(settings: TrainConfig) -> subprocess.Popen[str]:
    code = "import sys, dllm2rec\ndllm2rec.train(dllm2rec.TrainConfig.model_validate_json(sys.argv[1]))"
    command = [sys.executable, "-c", code, settings.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed(settings: TrainConfig) -> Path:
    """Kill a training that has kept a checkpoint; returns where that lies."""
    folder = settings.output.parent / f".{settings.output.name}.checkpoints"
    process = start(settings)
    while not list(folder.glob(f"*/{NEWEST_FILE}")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (settings.output / MANIFEST_FILE).exists()
    return folder


def results(student: Path) -> dict[str, float]:
    return {name: value for name, value in read_manifest(student).metrics.items() if "second" not in name}


def test_a_killed_training_resumes_and_ends_as_an_undisturbed_one(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(dataset, tmp_path / "student")
    folder = killed(settings)
    changed = settings.model_copy(update={"seed": 1})
    with pytest.raises(OutputError, match=r"student: a training was stopped there that differs in `seed`: 1 instead"):
        train(changed)
    train(settings.model_copy(update={"checkpoint_seconds": 60}))
    assert "student: resumes after epoch " in capsys.readouterr().out
    assert not folder.exists()
    train(config(dataset, tmp_path / "whole", checkpoint_seconds=60))
    assert "resumes after" not in capsys.readouterr().out
    assert results(tmp_path / "student") == results(tmp_path / "whole")


def test_a_training_with_other_settings_begins_again_if_that_is_asked_for(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(dataset, tmp_path / "student")
    folder = killed(settings)
    train(settings.model_copy(update={"epochs": 2, "overwrite": True}))
    assert "resumes after" not in capsys.readouterr().out
    assert read_manifest(settings.output).counts["epochs"] == 2
    assert not folder.exists()


def test_a_short_training_keeps_no_checkpoints(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.unfinished.Unfinished.keep", lambda *_: pytest.fail("a checkpoint was kept"))
    train(config(dataset, tmp_path / "student", epochs=3, checkpoint_seconds=TrainConfig().checkpoint_seconds))
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
