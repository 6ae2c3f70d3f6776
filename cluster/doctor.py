"""The verb ``doctor``: whether an environment or a cluster can do the work, before it costs anything.

A line per check: what was found, or what to do.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.config import TrackingConfig
from cluster.console import say
from cluster.doctor_config import DoctorConfig
from cluster.errors import ClusterError, UserError
from cluster.node_check import NodeReport, report, versions
from cluster.ray_session import ray_session
from cluster.text import aligned
from cluster.tracking import Tracker

NODE_SECONDS = 120
"""How long a node may take to tell of itself; the first task on a node starts a process."""


class Finding(NamedTuple):
    """The result of one check."""

    check: str
    good: bool
    text: str
    """What was found; for a fault, what to do as well."""


def doctor(config: DoctorConfig) -> None:
    """Check the environment and every node, and print a line for each check.

    Raises:
        ClusterError: a check failed.
        ConfigError: no Ray answers at ``config.cluster.address``.
    """
    findings = [*_engines()]
    with ray_session(config.cluster):
        findings += _resources()
        for node, reported, skew in _nodes():
            findings += judge_node(config, node, reported, skew)
    findings.append(_mlflow(config.tracking))
    lines = [["ok" if finding.good else "FAULT", finding.check, finding.text] for finding in findings]
    say(aligned(lines, left=(0, 1, 2)))
    faults = sum(not finding.good for finding in findings)
    if faults:
        raise ClusterError(f"{faults} of {len(findings)} checks found a fault: see the lines marked FAULT")


def _engines() -> Iterator[Finding]:
    found = versions()
    yield Finding("versions", True, ", ".join(f"{name} {number}" for name, number in found.items()))
    for name in ("deepspeed", "vllm"):
        if name not in found:
            yield Finding(name, False, "is not installed: run `make install`")


def _resources() -> Iterator[Finding]:
    alive = [node for node in ray.nodes() if node["Alive"]]
    for node in alive:
        has = {kind: amount for kind, amount in node["Resources"].items() if kind in ("CPU", "GPU", "memory")}
        memory = f"{has.pop('memory', 0) / 2**30:.0f} GiB"
        counts = ", ".join(f"{amount:g} {kind}s" for kind, amount in sorted(has.items()))
        yield Finding(f"node {node['NodeManagerHostname']}", True, f"{counts or 'no CPUs'}, {memory}")
    if not any(node["Resources"].get("CPU") for node in alive):
        yield Finding(
            "nodes", False, "none has CPUs, so nothing runs before one is started: use --resources.autoscale True"
        )


def _nodes() -> Iterator[tuple[str, NodeReport | None, float]]:
    """Every node's name, what it tells and how far its clock is off, seconds."""
    look = ray.remote(num_cpus=0, max_retries=0)(report)
    asked = [
        (
            node["NodeManagerHostname"],
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    for name, reference in asked:
        before = time.time()
        try:
            reported = ray.get(reference, timeout=NODE_SECONDS)
        except ray.exceptions.RayError:
            yield name, None, 0.0
            continue
        yield name, reported, max(before - reported.seconds, reported.seconds - time.time(), 0.0)


def judge_node(config: DoctorConfig, name: str, reported: NodeReport | None, skew: float) -> Iterator[Finding]:
    """The findings on one node, from what it tells (none if it does not answer) and its clock's error, seconds."""
    if reported is None:
        yield Finding(f"{name}: task", False, f"none was finished in {NODE_SECONDS} s: look at the node's raylet log")
        return
    name = reported.name
    here = versions()
    others = [
        f"{kind} {number} (here {here.get(kind, 'none')})"
        for kind, number in reported.versions.items()
        if here.get(kind) != number
    ]
    yield Finding(
        f"{name}: versions",
        not others,
        f"differ: {', '.join(others)}: build all nodes from one image" if others else "as here",
    )
    free = reported.free_bytes / 1e9
    yield Finding(
        f"{name}: disk",
        free >= config.min_free_gigabytes,
        f"{free:.0f} GB free" + ("" if free >= config.min_free_gigabytes else ": give the node a larger disk"),
    )
    yield Finding(
        f"{name}: clock",
        skew <= config.max_clock_skew,
        f"{skew:.1f} s off" + ("" if skew <= config.max_clock_skew else ": set its clock by NTP"),
    )
    for gpu in reported.gpus:
        fault = f": torch cannot use it ({reported.cuda}): the driver must be as new as torch's CUDA asks"
        yield Finding(f"{name}: GPU", not reported.cuda, gpu + (fault if reported.cuda else ""))


def _mlflow(tracking: TrackingConfig) -> Finding:
    tracker = Tracker(tracking)
    try:
        with tracker.client() as client:
            client.search_registered_models(max_results=1)
    except UserError as error:
        return Finding("MLflow", False, str(error))
    return Finding("MLflow", True, f"{tracker.shown_uri} answers")
