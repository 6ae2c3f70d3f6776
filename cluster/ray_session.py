"""The one place that connects to Ray: a local instance by default, any address otherwise."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import AuthenticationError

from cluster.config import ClusterConfig
from cluster.errors import ConfigError

# What every worker needs to know before it imports an engine; docs/decisions.md says why each is there.
WORKER_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
# A local Ray has no nodes that a cloud could take away.
LOCAL_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
QUIET_ENVIRONMENT = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def ray_session(config: ClusterConfig) -> Iterator[None]:
    """Connect to Ray for the length of the block; a session that is already open is used and left open.

    Raises:
        ConfigError: no Ray answers at ``config.address``.
    """
    if ray.is_initialized():
        yield
        return
    connect(config)
    try:
        yield
    finally:
        ray.shutdown()


def connect(config: ClusterConfig) -> None:
    """Start a local Ray or connect to ``config.address``.

    Raises:
        ConfigError: no Ray answers at ``config.address``.
    """
    os.environ.update(QUIET_ENVIRONMENT | WORKER_ENVIRONMENT)
    # Inside a submitted job RAY_ADDRESS names the cluster that runs it.
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    options = {}
    if address == "local":
        os.environ.update(LOCAL_ENVIRONMENT)
        options = {"num_cpus": config.cpus, "include_dashboard": False}
    try:
        _probe(address)
        ray.init(
            address=address,
            runtime_env={
                "env_vars": WORKER_ENVIRONMENT,
                "worker_process_setup_hook": "cluster.ray_session.quiet_worker",
            },
            logging_level=logging.WARNING,
            log_to_driver=True,
            configure_logging=True,
            **options,
        )
    except AuthenticationError as error:
        raise ConfigError(
            f"Ray at --cluster.address {address} refuses the token: set RAY_AUTH_TOKEN to the one its head has"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"no Ray answers at --cluster.address {address}: {reason[:200]}") from error


def quiet_worker() -> None:
    """Keep Ray's and DeepSpeed's own chatter out of a worker's log, which the user reads for progress."""
    for name in ("ray.train", "ray.data", "DeepSpeed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It asks the dashboard, which a local Ray does without.
    logging.getLogger("ray.train.v2._internal.execution.controller.placement_group_cleaner").setLevel(logging.ERROR)


def _probe(address: str) -> None:
    """Fail within seconds where nothing listens; Ray itself waits for two minutes and then ends the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=5).close()
