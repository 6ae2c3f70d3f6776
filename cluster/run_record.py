"""What an MLflow run holds, as plain data; :mod:`cluster.tracking` sends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cluster.config import Config

RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class RunRecord:
    """What an MLflow run holds, or a part of it; ``@`` in names of metrics and tags becomes ``_at_``."""

    key: str
    """The identity of the job, by which its run is found."""
    name: str
    parent: "RunRecord | None" = None
    """The run that this one stands under; it has no result itself."""
    params: Config | Mapping[str, Any] = field(default_factory=dict)
    """Nested ones become ``outer.inner``."""
    tags: Mapping[str, str] = field(default_factory=dict)
    curve: Sequence[tuple[int, Mapping[str, float]]] = ()
    """Metrics by step (epoch)."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final metrics."""
    artifacts: Sequence[Path] = ()
    """Files and directories."""
    status: RunStatus = "RUNNING"
    result: str = ""
    """The fingerprint of what the job made, if the record is complete. A run that has one does not change any more: the
    same job with another result gets another run."""
    started: float = 0.0
    """Seconds since 1970; 0 for now."""
    ended: float = 0.0


def metric_name(name: str) -> str:
    """A metric's name in MLflow, which allows no ``@``: ``ndcg@20`` is ``ndcg_at_20``."""
    return name.replace("@", "_at_")


def flatten(settings: Config | Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of text, ``outer.inner`` to value."""
    mapping = settings.model_dump(mode="json") if isinstance(settings, Config) else settings
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        if isinstance(value, Config | Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
