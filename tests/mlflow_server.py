"""A process of MLflow that listens on loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Self


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Listening:
    """A command of MLflow in an activated environment; as a context it runs for the length of the block."""

    def __init__(self, command: str, folder: Path, path: str) -> None:
        """``folder`` is where it runs, and ``path`` what answers once it is up."""
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._command, self._folder, self._path = command, folder, path
        self._environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(port),
            "MLFLOW_WORKERS": "1",
            # A server starts seven processes for them.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }

    def __enter__(self) -> Self:
        log = self._folder / "mlflow.log"
        with log.open("a") as file:
            self._process = subprocess.Popen(
                ["bash", "-c", self._command],
                cwd=self._folder,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=self._environment,
            )
        for _ in range(360):
            if self._process.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:])
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}{self._path}"):
                return self
            time.sleep(0.5)
        self.__exit__()
        raise RuntimeError(log.read_text()[-2000:])

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def mlflow_server(folder: Path) -> Listening:
    """An MLflow server whose database and artifacts lie in ``folder``; it answers to 127.0.0.1 and no other name."""
    store = "--backend-store-uri sqlite:///server.db --artifacts-destination files"
    return Listening(f"mlflow server {store} --allowed-hosts '127.0.0.1*'", folder, "/health")
