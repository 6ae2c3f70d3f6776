"""What the doctor says of nodes and of a machine; ``test_jobs`` runs it as a job."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.doctor import judge_node
from cluster.doctor_config import DoctorConfig
from cluster.node_check import NodeReport, installed_gpus, versions

HEALTHY = NodeReport("worker (10.0.0.2)", versions(), seconds=0.0, free_bytes=10**12, gpus=(), cuda="")


def faults(report: NodeReport | None, skew: float = 0.0) -> list[str]:
    return [finding.text for finding in judge_node(DoctorConfig(), "worker", report, skew) if not finding.good]


def test_a_healthy_node_has_no_faults() -> None:
    assert faults(HEALTHY) == []


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (None, "raylet"),
        (replace(HEALTHY, versions=versions() | {"ray": "2.1"}), "ray 2.1 (here "),
        (replace(HEALTHY, free_bytes=10**9), "1 GB free: give"),
        (replace(HEALTHY, gpus=("NVIDIA L4, 550.1, 24 GiB",), cuda="driver is too old"), "driver is too old"),
    ],
)
def test_a_fault_says_what_to_do(report: NodeReport | None, words: str) -> None:
    (found,) = faults(report)
    assert words in found
    assert ":" in found


def test_a_clock_that_is_off_is_a_fault() -> None:
    assert faults(HEALTHY, skew=6.0) == ["6.0 s off: set its clock by NTP"]


def test_gpus_are_those_that_the_driver_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 580.95, 23034 MiB'\necho 'NVIDIA L4, 580.95, 23034 MiB'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert installed_gpus() == ("NVIDIA L4, 580.95, 23034 MiB",) * 2


@pytest.mark.engine
def test_faults_are_counted_and_end_the_command(tmp_path: Path) -> None:
    options = ["--min-free-gigabytes", "1000000", "--tracking.uri", "http://127.0.0.1:9"]
    done = subprocess.run(
        [sys.executable, "-m", "dllm2rec", "doctor", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "2 of 6 checks found a fault" in done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAULT")][1:] == ["MLflow"]
