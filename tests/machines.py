"""Two machines on one: a Ray head without CPUs, and a node with a file system of its own for temporary files."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ray._raylet import GcsClient

from tests.mlflow_server import free_port

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
ENVIRONMENT = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
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
exec "$@"
"""
PROJECT = Path(__file__).parent.parent


def can_unshare() -> bool:
    """Whether this process may make mount namespaces."""
    unshare = shutil.which("unshare")
    return bool(unshare) and subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def two_machines(shared: Path) -> Iterator[str]:
    """Run both for the length of the block; yields the address. Both see the folder ``shared`` below /tmp, no other."""
    address = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as own, ExitStack() as machines:
        port = address.rpartition(":")[2]
        head = ["start", "--head", "--num-cpus=0", f"--port={port}", "--include-dashboard=false", f"--temp-dir={own}"]
        machines.enter_context(_machine([*RAY, *head, "--block"], Path(own) / "head.log", address, nodes=1))
        node = [*RAY, "start", f"--address={address}", "--num-cpus=2", "--block"]
        isolated = ["unshare", "-m", "bash", "-euc", OWN_TMP, "bash", *node]
        log = Path(own) / "node.log"
        machines.enter_context(
            _machine(isolated, log, address, nodes=2, SHARED=str(shared), PROJECT=str(PROJECT), OWN=f"{own}/tmp")
        )
        yield address


@contextmanager
def _machine(command: list[str], log: Path, address: str, nodes: int, **environment: str) -> Iterator[None]:
    """Run a machine for the length of the block, from when the cluster has so many nodes."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, start_new_session=True, env=ENVIRONMENT | environment
        )
    try:
        while _nodes(address) < nodes:
            if process.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:])
            time.sleep(0.5)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _nodes(address: str) -> int:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return 0
    return len(GcsClient(address=address).get_all_node_info(timeout=10))
