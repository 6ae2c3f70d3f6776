"""The proof that a worker sees the output and the inputs that the driver sees, given before work starts.

The driver writes a mark beside the output. A worker reads this very mark, writes one of its own and removes it, and
finds the inputs as the driver found them: a folder of the same name on another disk is told apart.
"""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.config import ResourcesConfig
from cluster.errors import ClusterError, OutputError, UserError
from cluster.paths import files_under
from cluster.storage import MANIFEST_FILE

NODE_SECONDS = 60
"""How long nodes may take to answer; one that does not is left to the check that its workers make as they start."""
_SHARE = "mount the storage that all nodes share there, or give paths on it"


@dataclass(frozen=True)
class Probe:
    """What the driver sees."""

    mark: Path
    token: str
    output: Path
    inputs: Mapping[str, tuple[Path, str]]
    """By option: where an input lies, and how it looks."""
    driver: str

    def check(self) -> None:
        """Compare with what this process sees.

        Raises:
            ClusterError: names the node and the path.
        """
        node = os.uname().nodename
        with suppress(RuntimeError):  # there is no Ray
            node += f" ({ray.util.get_node_ip_address()})"
        try:
            seen = self.mark.read_text()
        except (OSError, UserError):
            seen = ""
        if seen != self.token:
            raise ClusterError(f"node {node} does not see --output {self.output} as {self.driver} does: {_SHARE}")
        own = self.mark.with_name(f"{self.mark.name}-{uuid.uuid4().hex}")
        try:
            own.write_text(self.token)
            own.unlink()
        except (OSError, UserError) as error:
            words = error.strerror if isinstance(error, OSError) else error
            raise ClusterError(
                f"node {node} cannot write to {self.output.parent}, where --output goes ({words}): {_SHARE}"
            ) from error
        for option, (path, expected) in self.inputs.items():
            if look(path) != expected:
                raise ClusterError(f"node {node} does not see --{option} {path} as {self.driver} does: {_SHARE}")


@contextmanager
def probed(output: Path, inputs: Mapping[str, Path | None], resources: ResourcesConfig) -> Iterator[Probe]:
    """Prove that every node that can hold a worker sees what this process sees; workers check again as they start.

    Args:
        output: of the verb; its folder is made.
        inputs: by option.
        resources: of a worker.

    Raises:
        ClusterError: names a node and a path.
        OutputError: this process cannot write there.
    """
    output = output.absolute()
    found = {option: path.absolute() for option, path in inputs.items() if path is not None}
    looks = {option: (path, look(path)) for option, path in found.items()}
    probe = Probe(output.parent / f".{output.name}.probe", uuid.uuid4().hex, output, looks, os.uname().nodename)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        probe.mark.write_text(probe.token)
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error.strerror}): choose another --output") from error
    try:
        _check_nodes(probe, resources)
        yield probe
    finally:
        with suppress(OSError, UserError):
            probe.mark.unlink(missing_ok=True)


def _check_nodes(probe: Probe, resources: ResourcesConfig) -> None:
    here, each = ray.get_runtime_context().get_node_id(), resources.per_worker()
    fitting = [
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"]
        and node["NodeID"] != here
        and all(node["Resources"].get(kind, 0) >= amount for kind, amount in each.items())
    ]
    check = ray.remote(num_cpus=0, max_retries=0)(_fault)
    asked = [
        check.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(probe)
        for node in fitting
    ]
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=NODE_SECONDS) if asked else ([], [])
    for answer in answered:
        with suppress(RayError):  # a node that died meanwhile gets no workers
            if fault := ray.get(answer):
                raise ClusterError(fault)


def _fault(probe: Probe) -> str:
    try:
        probe.check()
    except ClusterError as error:
        return str(error)
    return ""


def look(path: Path) -> str:
    """What tells an input from another one: its manifest, else the names and sizes of its files."""
    try:
        manifest = path / MANIFEST_FILE
        if manifest.is_file():
            return manifest.read_text()
        return repr(sorted((file.name, file.size) for file in files_under(path)))
    except OSError as error:
        return f"{error.strerror}"
