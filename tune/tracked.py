"""Searches and comparisons as MLflow runs, while they are under way and as their directories hold them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cluster.run_record import RunRecord
from cluster.storage import read_manifest
from tune.compare_config import CompareConfig
from tune.compare_runs import Result, Run, plan, results_in
from tune.config import TuneConfig
from tune.journal import SEARCH_FILE, TRIALS_FILE, Record


def search_run(config: TuneConfig, search: Mapping[str, str], inputs: Mapping[str, str]) -> RunRecord:
    """The run of a search.

    Args:
        config: of the search.
        search: all that decides its results, as text by name.
        inputs: fingerprints by name.
    """
    return RunRecord(
        key=f"tune-{_digest(search)}",
        name=f"tune {config.train.model.name}",
        params=config,
        tags={f"fingerprint.{name}": value for name, value in inputs.items()},
    )


def trial_run(record: Record, search: RunRecord, metric: str) -> RunRecord:
    """The run of a trial that ended."""
    tags = {"trial": str(record.number), "state": record.state}
    tags |= {} if record.parent is None else {"parent_trial": str(record.parent)}
    best = {f"best_validation_{metric}": record.best(metric)} if record.history else {}
    return RunRecord(
        key=f"{search.key}-{record.number}",
        name=f"trial {record.number}",
        parent=search,
        params=record.point | {"seed": record.seed},
        tags=tags | ({"reason": record.reason} if record.reason else {}),
        curve=[
            (int(at["epoch"]), {n if n == "loss" else f"validation_{n}": value for n, value in at.items()})
            for at in record.history
        ],
        metrics=best | record.measures,
        status="FAILED" if record.state == "failed" else "FINISHED",
        result=_digest(record.model_dump(mode="json")),
        started=record.ended - record.seconds,
        ended=record.ended,
    )


def comparison_run(config: CompareConfig, runs: Sequence[Run], inputs: Mapping[str, str]) -> RunRecord:
    """The run of a comparison."""
    return RunRecord(
        key=f"compare-{_digest([run.key for run in runs])}",
        name=f"compare {config.output.name}",
        params=config,
        tags={f"fingerprint.{name}": value for name, value in inputs.items()},
    )


def compared_run(run: Run, result: Result, comparison: RunRecord) -> RunRecord:
    """The run of one training of a comparison."""
    return RunRecord(
        key=f"{comparison.key}-{run.name}",
        name=run.name,
        parent=comparison,
        params=run.config,
        metrics=result.metrics,
        status="FINISHED",
        result=run.key,
    )


def search_runs(directory: Path) -> Iterator[RunRecord]:
    """The runs of a finished search: its own and those of its trials."""
    manifest = read_manifest(directory, "tune")
    config = TuneConfig.model_validate(manifest.config)
    search = search_run(config, json.loads((directory / SEARCH_FILE).read_text())["search"], manifest.inputs)
    files = [path for path in sorted(directory.iterdir()) if path.suffix in (".csv", ".yaml", ".html", ".png")]
    ended = manifest.created.timestamp()
    yield replace(search, metrics=manifest.metrics, artifacts=files, status="FINISHED", ended=ended)
    for line in (directory / TRIALS_FILE).read_text().splitlines():
        yield trial_run(Record.model_validate_json(line), search, config.search.objectives[0])


def comparison_runs(directory: Path) -> Iterator[RunRecord]:
    """The runs of a finished comparison: its own and those of its trainings."""
    manifest = read_manifest(directory, "compare")
    config = CompareConfig.model_validate(manifest.config)
    runs, inputs = plan(config)
    comparison = comparison_run(config, runs, inputs)
    files = [path for path in sorted(directory.iterdir()) if path.suffix in (".csv", ".md", ".png")]
    yield replace(comparison, artifacts=files, status="FINISHED", ended=manifest.created.timestamp())
    for run, result in results_in(directory, runs).items():
        yield compared_run(run, result, comparison)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
