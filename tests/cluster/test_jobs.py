"""Submits to a Ray head that the module starts, with a token, in its own directory and on free ports."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError
from ray.job_submission import JobSubmissionClient

from cluster.config import Config, SubmitConfig
from cluster.errors import ClusterError, ConfigError
from cluster.jobs import connect, dashboard, submit
from data_prep.config import PrepareConfig
from model_registry.config import PromoteConfig
from student_train.config import TrainConfig
from tune.config import TuneConfig

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-this-test"
LISTING = """
import json, pathlib

print(json.dumps(sorted(str(path) for path in pathlib.Path().rglob("*") if path.is_file())))
"""
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


def asked(address: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dllm2rec", "jobs", *argv, "--address", address],
        cwd=ROOT,
        env=os.environ | {"RAY_AUTH_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        check=False,
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
        for _ in range(120):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return process
            time.sleep(1)
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
    assert re.search(r"^job raysubmit_\w+ submitted: follow it with `dllm2rec jobs logs", log, re.MULTILINE)


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
    name = re.search(r"job (raysubmit_\w+) continues: .*`dllm2rec jobs stop", log)[1]
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", head)
    client = JobSubmissionClient(head, headers={"Authorization": f"Bearer {TOKEN}"})
    while not (details := client.get_job_info(name)).status.is_terminal():
        time.sleep(0.5)
    assert details.status == "SUCCEEDED"


@pytest.mark.engine
@pytest.mark.parametrize(
    ("token", "message"), [("", "Token authentication is enabled"), ("wrong", "Authentication failed")]
)
def test_missing_or_wrong_token_is_told_in_one_line(head: str, tmp_path: Path, token: str, message: str) -> None:
    where = {"RAY_AUTH_TOKEN": token, "HOME": str(tmp_path)}
    job = command(head, "prepare", "--source", "synthetic", "--output", str(tmp_path / "dataset"), **where)
    _, log = job.communicate()
    assert job.returncode == 2
    assert f"{head} refuses ({message}" in log.splitlines()[-1]
    assert log.splitlines()[-1].endswith("set RAY_AUTH_TOKEN to the one its head has")


@pytest.mark.engine
def test_the_job_runs_in_the_project_without_environments_results_and_data(head: str, tmp_path: Path) -> None:
    kept = ["dllm2rec.py", "configs/a.yaml", "data_prep/schema.py"]
    for name in [*kept, ".venv/bin/python", ".git/HEAD", "runs/x", "data/raw.csv", "mlflow.db", "a/__pycache__/a.pyc"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "dllm2rec.py").write_text(LISTING)
    job = command(head, "--working-dir", str(tmp_path), "promote", "--output", str(tmp_path / "runs" / "none"))
    out, log = job.communicate()
    assert job.returncode == 0, out + log
    assert json.loads(out.splitlines()[-1]) == sorted(kept)


@pytest.mark.engine
def test_a_named_job_is_listed_followed_and_knows_its_commit(head: str, tmp_path: Path) -> None:
    (tmp_path / "dllm2rec.py").write_text("import os\nprint('of', os.environ['DLLM2REC_COMMIT'])")
    for words in ("init -q", "add .", "-c user.name=a -c user.email=a@b.c commit -q -m one"):
        subprocess.run(["git", "-C", tmp_path, *words.split()], check=True)
    commit = subprocess.check_output(["git", "-C", tmp_path, "rev-parse", "HEAD"], text=True).strip()
    project = ["--working-dir", str(tmp_path), "--submission-id", "mine", "--no-wait"]
    sent = command(head, *project, "promote", "--output", str(tmp_path / "none"))
    _, log = sent.communicate()
    assert sent.returncode == 0, log
    assert f"`dllm2rec jobs logs mine --address {head}`" in log
    followed = asked(head, "logs", "mine")
    assert followed.returncode == 0
    assert f"of {commit}" in followed.stdout.splitlines()
    assert asked(head, "status", "mine").stdout.startswith("mine: succeeded")
    assert re.search(r"^mine +succeeded +\S+ \S+ UTC +python -u -m dllm2rec promote", asked(head).stdout, re.MULTILINE)
    again = command(head, *project, "promote", "--output", str(tmp_path / "none"))
    assert "mine" in again.communicate()[1].splitlines()[-1]
    assert again.returncode == 2


@pytest.mark.engine
def test_a_job_waits_for_what_its_own_process_needs(head: str, tmp_path: Path) -> None:
    options = ["--submission-id", "large", "--no-wait", "--cpus", "64"]
    command(head, *options, "promote", "--output", str(tmp_path / "none")).communicate()
    assert asked(head, "status", "large").stdout.startswith("large: pending")
    assert asked(head, "stop", "large").stdout.startswith("large: pending, asked to stop")


@pytest.mark.engine
def test_a_job_that_nobody_knows_is_told_in_one_line(head: str) -> None:
    done = asked(head, "logs", "none")
    assert done.returncode == 2
    assert "tells nothing of a job none" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("resources", ["large", "large=", "=1", "large=1;small=2", "large=1,,small=2"])
def test_resources_that_are_no_pairs_are_refused(resources: str) -> None:
    with pytest.raises(ValidationError, match="spot=1"):
        SubmitConfig(resources=resources)


def test_resources_are_pairs() -> None:
    assert SubmitConfig(resources="large=1,spot=0.5").own_resources == {"large": 1, "spot": 0.5}


@pytest.mark.engine
def test_a_project_beyond_the_limit_is_told_in_one_line(head: str, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(os.urandom(101 * 2**20))
    job = command(head, "--working-dir", str(tmp_path), "promote", "--output", str(tmp_path / "runs" / "none"))
    _, log = job.communicate()
    assert job.returncode == 2
    assert re.search(r"is larger than the cluster takes \(.*104857600.*\): move away", log.splitlines()[-1])


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_address_without_a_dashboard_is_told_in_one_line(address: str) -> None:
    address = address.format(port=free_port())
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at --address {address}") as caught:
        connect(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://head:8265", "http://10.0.0.7:8265", "http://127.0.0.1.example.org"])
def test_the_token_goes_to_no_other_machine_over_plain_http(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    config = PromoteConfig(output=Path("/shared/promotion"))
    with pytest.raises(ConfigError, match=r"would get the token over plain http: forward .* --plain-http True"):
        submit(SubmitConfig(working_dir=ROOT, address=address), "promote", [], config)


@pytest.mark.parametrize("address", ["https://127.0.0.1:{port}", "http://localhost:{port}", "http://[::1]:{port}"])
def test_https_and_loopback_may_get_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ClusterError, match="no Ray cluster answers"):
        connect(address.format(port=free_port()))


def test_a_network_that_is_trusted_may_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ClusterError, match="no Ray cluster answers"):
        connect("http://no-such-host.invalid:8265", plain_http=True)


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


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (TrainConfig(dataset=Path("runs/dataset")), "dataset runs/dataset"),
        (TrainConfig(dataset=Path("/shared/dataset"), labels=Path("no/labels")), "labels no/labels"),
        (TuneConfig(train=TrainConfig(dataset=Path("data/set"))), "train.dataset data/set"),
        (
            PrepareConfig(source="csv", interactions=Path("../log.csv"), items=Path("README.md")),
            "interactions ../log.csv",
        ),
    ],
)
def test_inputs_that_the_job_would_not_find_are_refused(config: Config, option: str) -> None:
    config = config.model_copy(update={"output": Path("/shared/output")})
    with pytest.raises(ConfigError, match=f"--{re.escape(option)} would not be there for the job") as caught:
        submit(SubmitConfig(working_dir=ROOT), "verb", [], config)
    assert "\n" not in str(caught.value)


def test_inputs_that_are_uploaded_are_taken() -> None:
    config = PrepareConfig(
        source="csv", interactions=ROOT / "x", items=Path("README.md"), output=Path("/shared/output")
    )
    with pytest.raises(ClusterError, match="no Ray cluster answers"):
        submit(SubmitConfig(working_dir=ROOT, address=f"http://127.0.0.1:{free_port()}"), "prepare", [], config)


@pytest.mark.parametrize("rest", ["", "/", "/#/overview", "/#/jobs/raysubmit_1"])
def test_an_address_may_be_that_of_a_page(rest: str) -> None:
    assert dashboard(f"http://head:8265{rest}") == "http://head:8265"


def test_a_proxy_before_a_cluster_that_is_down_is_named() -> None:
    class Proxy(BaseHTTPRequestHandler):
        server_version, sys_version = "nginx/1.25", ""

        def do_GET(self) -> None:
            self.send_error(503)

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ClusterError, match=r"is answered by nginx/1.25 *with 503 Service Unavailable, not by Ray"):
            connect(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_credentials_on_the_command_line_are_refused() -> None:
    argv = ["--tracking.uri", "http://me:secret@mlflow:5000"]
    with pytest.raises(ConfigError, match="holds a password, which Ray would show") as caught:
        submit(SubmitConfig(working_dir=ROOT), "promote", argv, PromoteConfig(output=Path("/shared/promotion")))
    assert "secret" not in str(caught.value)


def test_config_outside_the_upload_is_refused(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "mine.yaml").write_text("promote: {}")
    argv = ["--config", str(tmp_path / "mine.yaml")]
    with pytest.raises(ConfigError, match=r"mine.yaml is not among the uploaded files: put it under --working-dir"):
        submit(SubmitConfig(working_dir=tmp_path / "project"), "promote", argv, PromoteConfig(output=tmp_path / "out"))


def test_missing_working_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no directory"):
        submit(SubmitConfig(working_dir=tmp_path / "none"), "promote", [], PromoteConfig(output=tmp_path / "out"))
