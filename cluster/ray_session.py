"""The one place that connects to Ray: a local instance by default, any address otherwise."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from cluster import console
from cluster.config import ClusterConfig, ResourcesConfig, no_ray_client
from cluster.errors import ConfigError

# What every worker needs to know before it imports an engine; docs/decisions.md says why each is there.
WORKER_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else tensor parallel engines ask for a NUMA node each
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
WORKER_SETUP = "cluster.console.quiet_worker"
# A local Ray has no nodes that a cloud could take away.
LOCAL_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
QUIET_ENVIRONMENT = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}

_local = False
"""Whether this process started the Ray that it is connected to."""


@contextmanager
def ray_session(config: ClusterConfig, dashboard: bool = False) -> Iterator[None]:
    """Connect to Ray for the length of the block; a session that is already open is used and left open.

    Args:
        config: where it is.
        dashboard: whether a local Ray has one. Ray Train asks it whether a run was killed, as those of stopped trials
            are, and frees what its workers held.

    Raises:
        ConfigError: no Ray answers at ``config.address``.
    """
    if ray.is_initialized():
        yield
        return
    global _local
    connect(config, dashboard)
    try:
        yield
    finally:
        ray.shutdown()
        _local = False


def connect(config: ClusterConfig, dashboard: bool = False) -> None:
    """Start a local Ray or connect to ``config.address``.

    Raises:
        ConfigError: no Ray answers at ``config.address``.
    """
    os.environ.update(QUIET_ENVIRONMENT | WORKER_ENVIRONMENT)
    # It announces at every start that tokens are on, which is what we want.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    address = _address(config) or "local"
    options: dict[str, Any] = {}
    if address == "local":
        os.environ.update(LOCAL_ENVIRONMENT)
        options = {"num_cpus": config.cpus, "include_dashboard": dashboard}
    global _local
    try:
        _probe(address)
        _start(address, options)
        _local = address == "local"
    except AuthenticationError as error:
        raise ConfigError(
            f"Ray at --cluster.address {address} refuses the token: set RAY_AUTH_TOKEN to the one its head has"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"no Ray answers at --cluster.address {address}: {reason[:200]}") from error


def fits_here(config: ClusterConfig, resources: ResourcesConfig, max_failures: int = 0) -> bool:
    """Whether a job needs no more than this process.

    That is so for one worker without a GPU and without restarts, where no cluster is named or connected.
    """
    clustered = not _local if ray.is_initialized() else _address(config) is not None
    alone = resources.workers == 1 and not max_failures
    return not clustered and alone and not resources.gpus and not resources.accelerator_type


def _address(config: ClusterConfig) -> str | None:
    # Inside a submitted job RAY_ADDRESS names the cluster that runs it.
    try:
        return config.address or no_ray_client(os.environ.get("RAY_ADDRESS")) or None
    except ValueError as error:
        raise ConfigError(f"RAY_ADDRESS: {error}") from error


def _start(address: str, options: dict[str, Any]) -> None:
    """Call ``ray.init``; a local Ray that a busy machine did not start within Ray's own limit gets a second chance."""
    for last in (False, True):
        try:
            with console.without_startup_lines():
                ray.init(
                    address=address,
                    runtime_env={"env_vars": WORKER_ENVIRONMENT, "worker_process_setup_hook": WORKER_SETUP},
                    logging_level=logging.WARNING,
                    **options,
                )
            console.show_workers()
            return
        except Exception as error:
            # Ray raises a bare Exception here and nowhere else.
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            if last:
                raise ConfigError("Ray did not start in time, twice: this machine is too busy; try again") from error


def _probe(address: str) -> None:
    """Fail within seconds where nothing listens; Ray itself waits for two minutes and then ends the process."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()
