import os
import socket

import pytest
import ray

from cluster.config import ClusterConfig
from cluster.errors import ConfigError
from cluster.ray_session import WORKER_ENVIRONMENT, ray_session


@pytest.mark.engine
def test_local_ray_has_the_cpus_asked_for_and_tells_workers_what_engines_need() -> None:
    @ray.remote
    def environment() -> dict[str, str]:
        return {name: os.environ.get(name, "") for name in WORKER_ENVIRONMENT}

    with ray_session(ClusterConfig(cpus=1)):
        assert ray.cluster_resources()["CPU"] == 1
        assert ray.get(environment.remote()) == WORKER_ENVIRONMENT
        with ray_session(ClusterConfig(cpus=2)):
            assert ray.cluster_resources()["CPU"] == 1
        assert ray.is_initialized()
    assert not ray.is_initialized()


@pytest.mark.engine
def test_session_ends_with_a_failing_block() -> None:
    with pytest.raises(ZeroDivisionError), ray_session(ClusterConfig(cpus=1)):
        _ = 1 / 0
    assert not ray.is_initialized()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_address_where_nothing_listens_is_told_in_one_line(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match=f"no Ray answers at --cluster.address {address}: ") as caught:
        ray_session(ClusterConfig(address=address)).__enter__()
    assert "\n" not in str(caught.value)


def test_malformed_address_is_told_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"no Ray answers at --cluster.address nonsense: "):
        ray_session(ClusterConfig(address="nonsense")).__enter__()
