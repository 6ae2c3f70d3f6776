"""Whether the cluster can ever give what is asked for; Ray itself would wait without end."""

from collections.abc import Mapping

import ray

from cluster.errors import ConfigError


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
    for name, amount in asked.items():
        if amount > have.get(name, 0):
            raise ConfigError(
                f"{who} ask for {amount:g} {name}, the cluster has {have.get(name, 0):g}: {remedy}, or join a larger "
                "cluster"
            )
