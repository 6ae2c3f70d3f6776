"""``train`` from a head without CPUs: the workers see nothing of the driver's machine but the shared folder."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.storage import read_manifest
from tests.machines import ENVIRONMENT, can_unshare, two_machines

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not can_unshare(), reason="mount namespaces are not allowed here"),
]
SMALL = "--model.hidden-size 16 --model.num-heads 2 --model.max-length 5 --batch-size 16 --epochs 2"


def test_a_student_is_trained_on_the_other_machine(dataset: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shutil.copytree(dataset, shared / "dataset")
    with two_machines(shared) as address:
        arguments = f"--cluster.address {address} --dataset {shared}/dataset --output {shared}/student {SMALL}"
        done = subprocess.run(
            [sys.executable, "-m", "dllm2rec", "train", *arguments.split(), "--max-failures", "1"],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_manifest(shared / "student", "train").counts["epochs"] == 2
    assert sorted(path.name for path in shared.iterdir()) == ["dataset", "student"]
