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
    # `mlflow models serve` looks for uvicorn there.
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    # A server starts seven processes for them.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def listening(command: list[str], port: int, log: Path, path: str) -> Iterator[str]:
    """Run ``python -m mlflow COMMAND`` for the length of the block, from when ``path`` answers; yields the address."""
    address = f"http://127.0.0.1:{port}"
    whole = [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with log.open("a") as file:
        process = subprocess.Popen(
            whole, stdout=file, stderr=file, start_new_session=True, env=os.environ | ENVIRONMENT
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
    return listening(["server", *store], port, folder / "server.log", "/health")
