"""Three machines on one: a Ray head without CPUs, and two nodes that have nothing in common with it but one folder.

The head runs in this machine's own namespaces. A node has a /tmp of its own and, where the system allows it, a network
of its own: an address, a host name and loopback.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.mlflow_server import free_port, mlflow_server

PROJECT = Path(__file__).parent.parent
TOKEN = "a-token-of-these-machines"
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory=200000000"]
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(PROJECT),
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Ray looks for the nodes of a machine among its processes.
OWN_SPACES = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
# In a mount namespace: an own /tmp, in which nothing of this machine's is seen but the shared folder, and the project's
# code where that lies below /tmp.
OWN_TMP = """
mkdir "$OWN" && mount -t tmpfs tmpfs "$OWN"
for folder in "$SHARED" "$PROJECT"; do
    if [[ "$folder" == /tmp/* ]]; then
        mkdir -p "$OWN/${folder#/tmp/}" && mount --bind "$folder" "$OWN/${folder#/tmp/}"
    fi
done
mount --rbind "$OWN" /tmp
"""
# In a host namespace: an own name, which resolves to the node's address as on any machine.
OWN_NAME = 'hostname "$NAME" && mount --bind "$HOSTS" /etc/hosts\n'


@dataclass(frozen=True)
class Machines:
    """The cluster as its head knows it."""

    address: str
    """Of Ray on the head."""
    dashboard: str
    """Of the Jobs API; it listens on the head's loopback."""
    client: str
    """``ray://`` address of the head."""
    nodes: tuple[str, ...]
    """Their addresses."""


def _works(*command: str) -> bool:
    return bool(shutil.which(command[0])) and subprocess.run(command, capture_output=True, check=False).returncode == 0


def can_unshare() -> bool:
    """Whether this process may make mount and process namespaces."""
    return _works(*OWN_SPACES, "true")


def can_network() -> bool:
    """Whether it may make networks too."""
    name = f"dllm2rec-{os.getpid()}"
    try:
        return (
            _works("unshare", "--uts", "true")
            and _works("ip", "netns", "add", name)
            and _works("ip", "link", "add", f"dv{os.getpid()}", "type", "veth", "peer", "name", "eth0", "netns", name)
        )
    finally:
        _works("ip", "netns", "del", name)


@contextmanager
def three_machines(shared: Path) -> Iterator[Machines]:
    """Run the machines for the length of the block; all see ``shared``, below /tmp, and MLflow on the head."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as own, ExitStack() as running:
        networks = running.enter_context(_networks(Path(own))) if can_network() else None
        host = networks.head if networks else "127.0.0.1"
        server = running.enter_context(mlflow_server(Path(own), host))
        environment = {"MLFLOW_TRACKING_URI": server.address}
        port, dashboard, client = free_port(), f"http://127.0.0.1:{free_port()}", free_port()
        options = ["--head", "--num-cpus=0", f"--port={port}", f"--node-ip-address={host}", f"--temp-dir={own}"]
        options += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard.rpartition(':')[2]}"]
        options += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={free_port()}"]
        running.enter_context(_machine([*RAY, *options], Path(own) / "head.log", dashboard, 1, environment))
        for number in (1, 2):
            prefix, node = OWN_SPACES, [*RAY, f"--address={host}:{port}", "--num-cpus=2"]
            script = OWN_TMP
            about = {"SHARED": str(shared), "PROJECT": str(PROJECT), "OWN": f"{own}/tmp{number}"}
            if networks:
                prefix = ["ip", "netns", "exec", networks.spaces[number - 1], *OWN_SPACES, "--uts"]
                node += [f"--node-ip-address={networks.nodes[number - 1]}"]
                script = OWN_NAME + OWN_TMP
                about |= {"NAME": f"node{number}", "HOSTS": str(networks.hosts)}
            else:
                node += [f"--dashboard-agent-listen-port={free_port()}"]
            command = [*prefix, "bash", "-euc", f'{script}exec "$@"', "bash", *node]
            log = Path(own) / f"node{number}.log"
            running.enter_context(_machine(command, log, dashboard, 1 + number, environment | about))
        nodes = networks.nodes if networks else (host, host)
        yield Machines(f"{host}:{port}", dashboard, f"ray://127.0.0.1:{client}", nodes)


@dataclass(frozen=True)
class _Networks:
    head: str
    nodes: tuple[str, str]
    spaces: tuple[str, str]
    """Names of network namespaces."""
    hosts: Path
    """File of all names and addresses."""


@contextmanager
def _networks(folder: Path) -> Iterator[_Networks]:
    """A bridge of this machine and a network namespace per node on it."""
    number = os.getpid()
    net, bridge = f"10.{64 + number // 250 % 128}.{number % 250}", f"db{number}"
    made = _Networks(f"{net}.1", (f"{net}.2", f"{net}.3"), (f"d{number}-1", f"d{number}-2"), folder / "hosts")
    names = [f"{made.head} {os.uname().nodename}", f"{made.nodes[0]} node1", f"{made.nodes[1]} node2"]
    made.hosts.write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
    try:
        _ip(f"link add {bridge} type bridge", f"addr add {made.head}/24 dev {bridge}", f"link set {bridge} up")
        for at, (space, address) in enumerate(zip(made.spaces, made.nodes, strict=True)):
            cable = f"dv{number}-{at}"
            _ip(f"netns add {space}", f"link add {cable} type veth peer name eth0 netns {space}")
            _ip(f"link set {cable} master {bridge} up", f"-n {space} addr add {address}/24 dev eth0")
            _ip(f"-n {space} link set eth0 up", f"-n {space} link set lo up")
        yield made
    finally:
        for space in made.spaces:
            _works("ip", "netns", "del", space)
        _works("ip", "link", "del", bridge)


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)


@contextmanager
def _machine(command: list[str], log: Path, dashboard: str, nodes: int, environment: dict[str, str]) -> Iterator[None]:
    """Run a machine for the length of the block, from when the cluster has so many nodes."""
    with log.open("w") as file:
        # Ray ends its processes when it is told to; so they do not outlive tests that are killed.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdout=file,
            stderr=file,
            start_new_session=True,
            env=ENVIRONMENT | environment,
        )
    try:
        while _nodes(dashboard) < nodes:
            if process.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:])
            time.sleep(0.5)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _nodes(dashboard: str) -> int:
    with contextlib.suppress(requests.RequestException):
        answer = requests.get(
            f"{dashboard}/nodes?view=summary", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5
        )
        if answer.ok:
            return len([one for one in answer.json()["data"]["summary"] if one["raylet"].get("state") == "ALIVE"])
    return 0
