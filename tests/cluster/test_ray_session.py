import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.config import ClusterConfig
from cluster.errors import ConfigError
from cluster.ray_session import connect
from dllm2rec import main

# In a process of its own: the other tests of this run share one Ray.
SESSIONS = """
import os, ray
from cluster.config import ClusterConfig, ResourcesConfig
from cluster.ray_session import WORKER_ENVIRONMENT, fits_here, ray_session

@ray.remote
def environment():
    return {name: os.environ.get(name, "") for name in WORKER_ENVIRONMENT}

def fits(**asked):
    return fits_here(ClusterConfig(), ResourcesConfig(**asked))

assert fits() and not fits(workers=2) and not fits(gpus=1)
assert not fits_here(ClusterConfig(), ResourcesConfig(), max_failures=1)
assert not fits_here(ClusterConfig(address="10.0.0.1:6379"), ResourcesConfig())
os.environ["RAY_ADDRESS"] = "10.0.0.1:6379"  # as inside a submitted job
assert not fits()
del os.environ["RAY_ADDRESS"]
ray.init(num_cpus=1, include_dashboard=False)
assert not fits()  # whatever Ray the user has connected to
ray.shutdown()

try:
    with ray_session(ClusterConfig(cpus=1)):
        assert fits()
        assert ray.cluster_resources()["CPU"] == 1
        assert ray.get(environment.remote()) == WORKER_ENVIRONMENT
        with ray_session(ClusterConfig(cpus=2)):
            assert ray.cluster_resources()["CPU"] == 1
        assert ray.is_initialized()
        1 / 0
except ZeroDivisionError:
    assert not ray.is_initialized()
    print("ended")
"""


@pytest.mark.engine
def test_a_local_ray_has_what_was_asked_for_and_ends_with_its_block_even_a_failing_one() -> None:
    done = subprocess.run([sys.executable, "-c", SESSIONS], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("ended\n"), done.stderr


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# In processes of their own for the same reason.
ADDRESS = """
import sys
from cluster.config import ClusterConfig
from cluster.errors import ConfigError
from cluster.ray_session import ray_session

try:
    ray_session(ClusterConfig(address=sys.argv[1])).__enter__()
except ConfigError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "nonsense"])
def test_an_address_where_nothing_listens_is_told_in_one_line(address: str) -> None:
    address = address.format(port=free_port())
    done = subprocess.run([sys.executable, "-c", ADDRESS, address], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"no Ray answers at --cluster.address {address}: ")


def test_the_ray_client_is_refused_in_one_line_that_names_submit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--cluster.address", "ray://head:10001", "--output", str(tmp_path / "student")])
    line = capsys.readouterr().err
    assert (ended.value.code, line.count("\n")) == (2, 1)
    assert "ray://head:10001 is an address of the Ray client" in line and "dllm2rec submit" in line
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigError, match="RAY_ADDRESS: ray://head:10001 is an address of the Ray client"):
        connect(ClusterConfig())
