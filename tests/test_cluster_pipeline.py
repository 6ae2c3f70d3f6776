"""Every verb as a submitted job on three machines, which share nothing but one folder: ``make test-cluster``."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cluster.storage import read_manifest
from data_prep.config import PrepareConfig, SyntheticConfig
from data_prep.prepare import prepare
from dllm2rec import VERBS
from teacher_infer.config import RANKERS
from tests.machines import ENVIRONMENT, PROJECT, Machines, can_unshare, three_machines

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not can_unshare(), reason="mount namespaces are not allowed here (they need root)"),
]
SMALL = "--model.hidden-size 16 --model.num-heads 2 --model.max-length 5 --batch-size 16"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all machines see."""
    return tmp_path_factory.mktemp("machines") / "shared"


@pytest.fixture(scope="module")
def machines(shared: Path) -> Iterator[Machines]:
    """The cluster."""
    shared.mkdir()
    with three_machines(shared) as running:
        yield running


@pytest.fixture(scope="module")
def dataset(machines: Machines, shared: Path) -> Path:
    """A data set that all machines see."""
    small = SyntheticConfig(items=60, users=80)
    return prepare(PrepareConfig(synthetic=small, output=shared / "dataset"))


def run(words: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """The console command, on the head."""
    return subprocess.run(
        [sys.executable, "-m", "dllm2rec", *words],
        cwd=PROJECT,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def documented(heading: str) -> list[str]:
    """The commands of a section of docs/cluster.md."""
    section = (PROJECT / "docs" / "cluster.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return section.partition("```bash\n")[2].partition("```")[0].replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("unseen", ["output", "dataset"])
def test_a_path_that_the_nodes_do_not_see_is_told_before_work_starts(
    machines: Machines, shared: Path, dataset: Path, tmp_path: Path, unseen: str
) -> None:
    output = tmp_path / "student" if unseen == "output" else shared / "unseen"
    read = shutil.copytree(dataset, tmp_path / "dataset") if unseen == "dataset" else dataset
    words = f"train --cluster.address {machines.address} --dataset {read} --output {output} {SMALL}"
    done = run(words.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    path = output if unseen == "output" else read
    assert re.search(rf"node \S+ \(({'|'.join(machines.nodes)})\) does not see --{unseen} {path} as", done.stderr)
    assert not output.exists()


def test_a_training_on_the_nodes_resumes_after_its_driver_was_killed(
    machines: Machines, shared: Path, dataset: Path
) -> None:
    words = f"train --cluster.address {machines.address} --dataset {dataset}"
    words += f" --output {shared}/killed {SMALL} --epochs 12 --checkpoint-seconds 0"
    command = [sys.executable, "-m", "dllm2rec", *words.split()]
    first = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(shared.glob(".killed.checkpoints/train-*/about.json")):
        assert first.poll() is None, first.stderr.read()[-2000:]
        time.sleep(0.05)
    while not list(shared.glob(".killed.checkpoints/train-*/checkpoint_manager_snapshot.json")):
        time.sleep(0.05)
    first.kill()
    first.communicate()
    other = run([*words.split(), "--seed", "1"])
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "differs in `seed`: 1 instead of 0" in other.stderr
    again = run(words.split())
    assert again.returncode == 0, again.stderr[-2000:]
    assert "killed: resumes after epoch " in again.stdout
    epochs = [at["epoch"] for at in json.loads((shared / "killed" / "curve.json").read_text())]
    assert epochs == list(range(1, len(epochs) + 1))


WALK = documented("Every verb, small")


@pytest.mark.parametrize("command", WALK, ids=[f"{at}-{line.split()[2]}" for at, line in enumerate(WALK)])
def test_a_command_of_the_page_works_as_written(command: str, machines: Machines, shared: Path) -> None:
    program, *words = shlex.split(command.replace("/shared", str(shared)))
    assert program == "dllm2rec"
    done = run(words, RAY_API_SERVER_ADDRESS=machines.dashboard)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    manifest = read_manifest(Path(words[words.index("--output") + 1]), words[1])
    assert not [name for name, count in manifest.counts.items() if "failed" in name and count]


def test_all_verbs_and_rankings_were_run(shared: Path) -> None:
    assert {line.split()[2] for line in WALK} == set(VERBS) - {
        *("import-labels", "export-labels", "rollback", "track", "demo", "doctor", "jobs")
    }
    labels = [shared / "try" / name for name in ("labels", "beam", "score", "embed")]
    made = [read_manifest(path, "label").config["ranking"] for path in labels]
    assert sorted(made) == sorted(RANKERS)
    assert read_manifest(shared / "try" / "student-of-two").counts["world_size"] == 2


def test_nothing_is_left_beside_the_outputs(shared: Path) -> None:
    assert not [path.name for path in (shared / "try").iterdir() if path.name.startswith(".")]
