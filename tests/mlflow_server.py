"""A process of MLflow that listens on loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ENVIRONMENT = {
    # As in an activated environment.
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "MLFLOW_HOST": "127.0.0.1",
    "MLFLOW_WORKERS": "1",
    # A server starts seven processes for them.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def listening(command: list[str], port: int, log: Path, path: str, folder: Path | None = None) -> Iterator[str]:
    """Run a command of MLflow in ``folder`` while the block runs, which begins when ``path`` answers; the address."""
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | ENVIRONMENT | {"MLFLOW_PORT": str(port)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with log.open("a") as file:
        process = subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=file, start_new_session=True, env=environment
        )
    try:
        for _ in range(360):
            if process.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:])
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}{path}"):
                break
            time.sleep(0.5)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def mlflow_server(folder: Path, port: int) -> contextlib.AbstractContextManager[str]:
    """An MLflow server whose database and artifacts lie in ``folder``, so that another one finds them there."""
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/files"]
    return listening(["mlflow", "server", *store], port, folder / "server.log", "/health")
