"""Whether the cluster can ever give what is asked for; Ray itself would wait without end."""

import os
from collections.abc import Mapping

import ray

from cluster.errors import ConfigError

DRIVER_CPUS, DRIVER_GPUS = "DLLM2REC_DRIVER_CPUS", "DLLM2REC_DRIVER_GPUS"
"""What the process of a submitted verb holds itself, in its environment."""


def check_resources(who: str, asked: Mapping[str, float], remedy: str) -> None:
    """Refuse a demand that is larger than the whole cluster.

    Args:
        who: asks, in the plural.
        asked: total amount by Ray's name of the resource (``CPU``, ``GPU``).
        remedy: which options to lower.

    Raises:
        ConfigError: says what is asked for, what there is and what to do.
    """
    have = ray.cluster_resources()
    driver = {"CPU": float(os.environ.get(DRIVER_CPUS, 0)), "GPU": float(os.environ.get(DRIVER_GPUS, 0))}
    for name, amount in asked.items():
        held = driver.get(name, 0)
        if amount > have.get(name, 0) - held:
            less = f" less {held:g} of the job's own process" if held else ""
            raise ConfigError(
                f"{who} ask for {amount:g} {name}, the cluster has {have.get(name, 0):g}{less}: {remedy}, or join a "
                "larger cluster"
            )
