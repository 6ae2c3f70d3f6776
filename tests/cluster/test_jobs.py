"""Submits to a Ray head that the module starts, with a token, in its own directory and on free ports."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import psutil
import pytest

from cluster.config import SubmitConfig, TrackingConfig
from cluster.errors import ClusterError, ConfigError
from cluster.jobs import UPLOAD_LIMIT, _lasting_journal, connect, pack, submit, uploaded_files
from data_prep.config import PrepareConfig
from model_registry.config import PromoteConfig

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-this-test"
ATTEMPTS = 6  # Ray gives a node 30 seconds to start, which a busy machine exceeds


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def command(address: str, *argv: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "dllm2rec", "submit", "--address", address, *argv],
        cwd=ROOT,
        env=os.environ | {"RAY_AUTH_TOKEN": TOKEN} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_head(directory: str, port: int) -> subprocess.Popen[str] | None:
    """A head whose dashboard listens on ``port``; none if it gave up."""
    binaries = Path(sys.executable).parent
    options = ["--num-cpus=1", f"--temp-dir={directory}", f"--port={free_port()}", f"--dashboard-port={port}"]
    options += [f"--dashboard-agent-listen-port={free_port()}"]
    process = subprocess.Popen(
        [binaries / "ray", "start", "--head", "--block", *options],
        env=os.environ
        | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
        | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if any("Ray runtime started" in line for line in process.stdout):
        return process
    stop(process)
    return None


def stop(process: subprocess.Popen[str]) -> None:
    """End exactly the processes of this head: `ray stop` would end those of others too."""
    mine: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        mine = [parent, *parent.children(recursive=True)]
    for one in mine:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    for one in psutil.wait_procs(mine, timeout=20)[1]:
        one.kill()
    process.wait()


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="ray")  # short: Ray's socket paths stand below it
    port = free_port()
    try:
        started = next(filter(None, (start_head(directory, port) for _ in range(ATTEMPTS))), None)
        assert started, "no Ray head could be started"
        yield f"http://127.0.0.1:{port}"
        stop(started)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.engine
def test_job_writes_its_output_and_log_and_code_come_back(head: str, tmp_path: Path) -> None:
    job = command(head, "prepare", "--source", "synthetic", "--output", str(tmp_path / "dataset"))
    out, log = job.communicate()
    assert job.returncode == 0, out + log
    assert (tmp_path / "dataset" / "manifest.json").is_file()
    assert "python -u -m dllm2rec prepare --source synthetic" in out
    assert re.search(r"^job raysubmit_\w+ submitted: follow it with `ray job logs --follow", log, re.MULTILINE)


@pytest.mark.engine
def test_user_error_of_the_job_comes_back_as_code_2_with_its_line(head: str, tmp_path: Path) -> None:
    job = command(head, "train", "--dataset", str(tmp_path / "none"), "--output", str(tmp_path / "student"))
    out, log = job.communicate()
    assert job.returncode == 2, out + log
    assert re.search(r"^dllm2rec: error: .*none", out, re.MULTILINE)
    assert "failed: Job entrypoint command failed with exit code 2" in log
    assert "Traceback" not in out + log


@pytest.mark.engine
def test_interrupt_says_how_to_go_on_and_leaves_the_job(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A shell that runs the tests in the background has the interrupt ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    job = command(head, "prepare", "--source", "synthetic", "--output", str(tmp_path / "dataset"))
    signal.signal(signal.SIGINT, before)
    assert "submitted" in next(line for line in job.stderr if line.startswith("job "))
    job.send_signal(signal.SIGINT)
    _, log = job.communicate()
    assert job.returncode == 130, log
    name = re.search(r"job (raysubmit_\w+) goes on: .*`ray job stop", log)[1]
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", head)
    client = connect(head)
    while not (details := client.get_job_info(name)).status.is_terminal():
        time.sleep(0.5)
    assert details.status == "SUCCEEDED"


@pytest.mark.engine
@pytest.mark.parametrize(("token", "message"), [("", "asks for a token"), ("wrong", "refuses the token")])
def test_missing_or_wrong_token_is_told_in_one_line(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, message: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=f"{message}: set RAY_AUTH_TOKEN"):
        connect(head)


@pytest.mark.parametrize("address", [f"http://127.0.0.1:{free_port()}", "127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_address_without_a_dashboard_is_told_in_one_line(address: str) -> None:
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at --address {address}") as caught:
        connect(address)
    assert "\n" not in str(caught.value)


def test_server_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.jobs.PROBE_SECONDS", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(ClusterError, match="timed out"):
            connect(f"http://127.0.0.1:{listener.getsockname()[1]}")


def test_relative_output_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"runs/promotion would vanish .* absolute path"):
        submit(SubmitConfig(working_dir=ROOT), "promote", [], PromoteConfig())


def test_what_a_tracking_server_misses_is_kept_beside_the_output() -> None:
    promotion = PromoteConfig(output=Path("/shared/promotion"))
    assert _lasting_journal(promotion) == ["--tracking.journal", "/shared/tracking"]
    assert _lasting_journal(promotion.model_copy(update={"tracking": TrackingConfig(journal=Path("/kept"))})) == []
    assert _lasting_journal(PrepareConfig(output=Path("/shared/dataset"))) == []


def test_config_outside_the_upload_is_refused(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "mine.yaml").write_text("promote: {}")
    argv = ["--config", str(tmp_path / "mine.yaml")]
    with pytest.raises(ConfigError, match=r"mine.yaml is not among the uploaded files: put it under --working-dir"):
        submit(SubmitConfig(working_dir=tmp_path / "project"), "promote", argv, PromoteConfig(output=tmp_path / "out"))


def test_upload_holds_the_project_without_environments_results_and_data(tmp_path: Path) -> None:
    kept = ["dllm2rec.py", "configs/a.yaml", "data_prep/schema.py"]
    for name in [*kept, ".venv/bin/python", ".git/HEAD", "runs/x", "data/raw.csv", "mlflow.db", "a/__pycache__/a.pyc"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    files = uploaded_files(tmp_path)
    with ZipFile(pack(tmp_path, files, tmp_path / "runs" / "p.zip")) as archive:
        assert sorted(archive.namelist()) == sorted(kept)
        assert archive.read("configs/a.yaml") == b"configs/a.yaml"


def test_upload_beyond_the_limit_names_limit_and_biggest_entries(tmp_path: Path) -> None:
    for name, size in (("models/a.bin", 60), ("models/b.bin", 30), ("dump.csv", 20), ("small.py", 0)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with (tmp_path / name).open("wb") as file:
            file.truncate(size * 2**20)
    with pytest.raises(
        ConfigError, match=r"holds 110\.0 MiB, the upload limit is 100\.0 MiB: .*models 90\.0 MiB, dump\.csv 20\.0 MiB"
    ):
        uploaded_files(tmp_path)


def test_limit_is_that_of_rays_dashboard() -> None:
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    assert UPLOAD_LIMIT == DASHBOARD_CLIENT_MAX_SIZE


def test_missing_working_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no directory"):
        uploaded_files(tmp_path / "none")


def test_project_itself_fits() -> None:
    names = {str(file.relative_to(ROOT)) for file in uploaded_files(ROOT)}
    assert {"dllm2rec.py", "cluster/jobs.py", "requirements/cuda.txt"} <= names
