"""Searches and comparisons as MLflow runs, while they are under way and as their directories hold them."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.config import Config
from cluster.run_record import RunRecord
from cluster.storage import read_manifest
from tune.journal import Record, read_journal

Settings = Config | Mapping[str, Any]
_KINDS = (".csv", ".yaml", ".html", ".md", ".png")


def parent_run(verb: str, output: Path, config: Settings, inputs: Mapping[str, str], journal_id: str) -> RunRecord:
    """The run of a search or a comparison.

    Args:
        verb: ``tune`` or ``compare``.
        output: its directory.
        config: of the verb.
        inputs: fingerprints by name.
        journal_id: of its journal, so that it stays one run, however often it is stopped or made larger.
    """
    tags = {f"fingerprint.{name}": value for name, value in inputs.items()}
    return RunRecord(f"{verb}-{journal_id}", f"{verb} {output.name}", params=config, tags=tags)


def trial_run(record: Record, parent: RunRecord) -> RunRecord:
    """The run of a trial that ended."""
    tags = {"trial": str(record.number), "state": record.state}
    tags |= {} if record.parent is None else {"parent_trial": str(record.parent)}
    several = len(record.histories) > 1
    curve = [
        (int(at["epoch"]), {_metric(name, seed if several else None): value for name, value in at.items()})
        for seed, history in record.histories.items()
        for at in history
    ]
    best = {f"best_validation_{m}": record.best(m) for m in ("ndcg@20", "hr@20") if record.histories}
    return RunRecord(
        key=f"{parent.key}-{record.name or record.number}",
        name=f"trial {record.number}",
        parent=parent,
        params=record.point,
        tags=tags | ({"reason": record.reason} if record.reason else {}),
        curve=curve,
        metrics=best | record.measures,
        status="FAILED" if record.state == "failed" else "FINISHED",
        result=_digest(record.model_dump(mode="json")),
        started=record.ended - record.seconds,
        ended=record.ended,
    )


def runs_of(directory: Path) -> Iterator[RunRecord]:
    """The runs of a finished search or comparison: its own and those of its trials."""
    manifest = read_manifest(directory)
    notes, records = read_journal(directory)
    parent = parent_run(manifest.verb, directory, manifest.config, manifest.inputs, notes["id"])
    files = [path for path in sorted(directory.iterdir()) if path.suffix in _KINDS]
    ended = manifest.created.timestamp()
    yield replace(parent, metrics=manifest.metrics, artifacts=files, status="FINISHED", ended=ended)
    for record in records:
        yield trial_run(record, parent)


def _metric(name: str, seed: int | None) -> str:
    named = name if name == "loss" else f"validation_{name}"
    return named if seed is None else f"{named}_seed_{seed}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
