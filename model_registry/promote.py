"""The verbs ``promote`` and ``rollback``: which registered version is the champion.

A refusal to promote is a correct answer, not a fault: the command says why, writes the decision down and ends with
code 0.
"""

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster.console import say
from cluster.files import write_json
from cluster.storage import output_directory
from cluster.tracking import Tracker
from data_prep.schema import RANKS_FILE
from model_registry.champion import CHAMPION, roll_back, set_champion
from model_registry.config import PromoteConfig, RollbackConfig
from model_registry.gate import GateRows, least_gain
from model_registry.latency import request_latency
from model_registry.versions import ModelVersion, Registry
from student_serve.recommender import Recommender

METRIC = "gate_ndcg@20"
DATASET_TAG = "fingerprint.dataset"
DECISION_FILE = "decision.json"
NO_GATE_ROWS = (
    "its data set keeps no rows from its selection: run `dllm2rec prepare --gate-share 0.2`, then label, train and "
    "register again"
)
NOT_COMPARABLE = f"nothing can be compared with it: delete its alias {CHAMPION} in MLflow to make room for a first one"


@dataclass(frozen=True)
class Decision:
    """What was decided about a candidate; ``champion`` is the version it was compared with."""

    name: str
    candidate: int
    candidate_ndcg: float
    champion: int | None = None
    champion_ndcg: float | None = None
    least_gain: float | None = None
    latency_ms: float | None = None
    megabytes: float | None = None
    promoted: bool = False
    reason: str = ""

    def because(self, promoted: bool, why: str) -> "Decision":
        """The decision with its outcome."""
        outcome = "promoted" if promoted else "not promoted"
        return replace(self, promoted=promoted, reason=f"{outcome}: {self.name} version {self.candidate} {why}")


def promote(config: PromoteConfig) -> Path:
    """Compare a version with the champion, move the alias if it passes the gate, and write the decision.

    Raises:
        ModelError: there is no such model or version, or a version was trained without gate rows.
        ConfigError: the tracking server does not answer.
        OutputError: the output directory holds something else.
    """
    registry = Registry(Tracker(config.tracking))
    candidate = registry.version(config.name, config.version)
    champion = registry.with_alias(config.name, CHAMPION)
    with output_directory(config.output, verb="promote", config=config, overwrite=config.overwrite) as draft:
        decision = decide(registry, candidate, champion, config)
        moved = _moved(set_champion(registry, candidate), candidate) if decision.promoted else ""
        write_json(draft.path / DECISION_FILE, asdict(decision))
        draft.counts["promoted"] = int(decision.promoted)
        draft.metrics[METRIC] = decision.candidate_ndcg
    say(f"{decision.reason}{moved}")
    return config.output


def decide(
    registry: Registry, candidate: ModelVersion, champion: ModelVersion | None, config: PromoteConfig
) -> Decision:
    """Promote a first candidate, or one that is surely better on the champion's data set, if it keeps the limits.

    Raises:
        ModelError: a version was trained without gate rows, or files of the candidate are missing.
    """
    new = _gate_rows(registry, candidate)
    decision = Decision(candidate.name, candidate.version, new.mean)
    if champion and champion.version == candidate.version:
        return decision.because(False, f"is the {CHAMPION} already ({METRIC} {new.mean:.4f})")
    if champion is None:
        decision = decision.because(True, f"is the first {CHAMPION} ({METRIC} {new.mean:.4f})")
    else:
        same = candidate.tags.get(DATASET_TAG) == champion.tags.get(DATASET_TAG)
        decision = _compared(decision, new, champion, _gate_rows(registry, champion, NOT_COMPARABLE), config, same)
    return _limited(registry, candidate, decision, config) if decision.promoted else decision


def _compared(
    decision: Decision, new: GateRows, champion: ModelVersion, old: GateRows, config: PromoteConfig, same: bool
) -> Decision:
    figures = f"{METRIC} {new.mean:.4f} against {old.mean:.4f} of {CHAMPION} version {champion.version}"
    decision = replace(decision, champion=champion.version, champion_ndcg=old.mean)
    if not same and not config.across_datasets:
        why = f"was measured on another data set ({figures}): add --across-datasets True to compare all the same"
        return decision.because(False, why)
    gain = least_gain(new, old, config.confidence, paired=same)
    decision = replace(decision, least_gain=gain)
    bound = f"{figures}, a gain of at least {gain:+.4f} with {config.confidence:.0%} confidence"
    outcome = f"is the new {CHAMPION}" if gain > 0 else "is not surely better"
    return decision.because(gain > 0, f"{outcome}: {bound}")


def _limited(registry: Registry, candidate: ModelVersion, decision: Decision, config: PromoteConfig) -> Decision:
    """The decision to promote, or a refusal if the candidate is larger or slower than allowed."""
    if config.max_latency_ms is None and config.max_megabytes is None:
        return decision
    with tempfile.TemporaryDirectory(prefix="dllm2rec-promote-") as folder:
        student = registry.fetch(candidate, Path(folder))
        megabytes = sum(file.stat().st_size for file in student.rglob("*") if file.is_file()) / 1e6
        latency = request_latency(Recommender(student))[1] if config.max_latency_ms else None
    decision = replace(decision, megabytes=megabytes, latency_ms=latency)
    if config.max_megabytes is not None and megabytes > config.max_megabytes:
        return decision.because(False, f"takes {megabytes:.1f} MB, more than --max-megabytes {config.max_megabytes:g}")
    if config.max_latency_ms is not None and latency is not None and latency > config.max_latency_ms:
        limit = f"more than --max-latency-ms {config.max_latency_ms:g}"
        return decision.because(False, f"takes {latency:.2f} ms for a request (99th percentile), {limit}")
    return decision


def _gate_rows(registry: Registry, model: ModelVersion, advice: str = NO_GATE_ROWS) -> GateRows:
    with tempfile.TemporaryDirectory(prefix="dllm2rec-promote-") as folder:
        return GateRows.read(registry.fetch_file(model, RANKS_FILE, Path(folder), advice))


def rollback(config: RollbackConfig) -> Path:
    """Give the champion's place back to the version before, and write down what was done.

    Raises:
        ModelError: there is no such model, no champion, or none before it.
        ConfigError: the tracking server does not answer.
        OutputError: the output directory holds something else.
    """
    registry = Registry(Tracker(config.tracking))
    with output_directory(config.output, verb="rollback", config=config, overwrite=config.overwrite) as draft:
        champion, was = roll_back(registry, config.name)
        done = {"name": config.name, "champion": champion.version, "was": was.version}
        write_json(draft.path / DECISION_FILE, done)
    say(f"rolled back{_moved(was, champion)}")
    return config.output


def _moved(was: ModelVersion | None, champion: ModelVersion) -> str:
    before = f"version {was.version}" if was else "none"
    return f"\n{CHAMPION} of {champion.name}: was {before}, is version {champion.version}"
