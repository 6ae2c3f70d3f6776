"""The verb ``promote``: make a registered version the champion if it is better on validation than the present one.

A refusal is a correct answer, not a fault: the command says why, writes the decision down and ends with code 0.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.config import PromoteConfig
from cluster.errors import ModelError
from cluster.registry import CHAMPION, ModelVersion, Registry
from cluster.storage import output_directory
from cluster.tracking import Tracker, metric_name

METRIC = "validation_ndcg@20"
DATASET_TAG = "fingerprint.dataset"
DECISION_FILE = "decision.json"


@dataclass(frozen=True)
class Decision:
    """What was decided about a candidate; ``champion`` is the version it was compared with."""

    name: str
    candidate: int
    candidate_ndcg: float
    champion: int | None
    champion_ndcg: float | None
    promoted: bool
    reason: str


def promote(config: PromoteConfig) -> Path:
    """Compare a version with the champion, move the alias if it is strictly better, and write the decision.

    Raises:
        ModelError: there is no such model or version, or a version carries no validation figure.
        ConfigError: the tracking server does not answer.
        OutputError: the output directory holds something else.
    """
    registry = Registry(Tracker(config.tracking))
    candidate = registry.version(config.name, config.version)
    champion = registry.with_alias(config.name, CHAMPION)
    decision = decide(candidate, champion, config.across_datasets)
    with output_directory(config.output, verb="promote", config=config, overwrite=config.overwrite) as draft:
        (draft.path / DECISION_FILE).write_text(json.dumps(asdict(decision), indent=2) + "\n")
        draft.counts["promoted"] = int(decision.promoted)
        draft.metrics[METRIC] = decision.candidate_ndcg
        if decision.promoted:
            registry.set_alias(candidate, CHAMPION)
    print(decision.reason)
    return config.output


def decide(candidate: ModelVersion, champion: ModelVersion | None, across_datasets: bool = False) -> Decision:
    """Promote a first candidate, or one with a strictly larger validation NDCG@20 on the champion's data set.

    Raises:
        ModelError: a version carries no validation figure.
    """
    new = validation_figure(candidate)
    if champion is None:
        return _decision(candidate, None, True, f"is the first {CHAMPION} ({METRIC} {new:.4f})")
    old = validation_figure(champion)
    figures = f"{METRIC} {new:.4f} against {old:.4f} of {CHAMPION} version {champion.version}"
    if champion.version == candidate.version:
        return _decision(candidate, champion, False, f"is the {CHAMPION} already ({METRIC} {new:.4f})")
    if not across_datasets and candidate.tags.get(DATASET_TAG) != champion.tags.get(DATASET_TAG):
        why = f"was measured on another data set ({figures}): add --across-datasets True to compare all the same"
        return _decision(candidate, champion, False, why)
    if new > old:
        return _decision(candidate, champion, True, f"is the new {CHAMPION}: {figures}")
    return _decision(candidate, champion, False, f"is not better: {figures}")


def validation_figure(model: ModelVersion) -> float:
    """The validation NDCG@20 a version was registered with.

    Raises:
        ModelError: it carries none, or not a finite number.
    """
    text = model.tags.get(metric_name(METRIC), "")
    try:
        figure = float(text)
    except ValueError:
        figure = math.nan
    if not math.isfinite(figure):
        raise ModelError(
            f"`{model.name}` version {model.version} has no usable tag {metric_name(METRIC)} ({text!r}): "
            "register the student again with `dllm2rec tune`"
        )
    return figure


def _decision(candidate: ModelVersion, champion: ModelVersion | None, promoted: bool, why: str) -> Decision:
    return Decision(
        name=candidate.name,
        candidate=candidate.version,
        candidate_ndcg=validation_figure(candidate),
        champion=champion.version if champion else None,
        champion_ndcg=validation_figure(champion) if champion else None,
        promoted=promoted,
        reason=f"{'promoted' if promoted else 'not promoted'}: {candidate.name} version {candidate.version} {why}",
    )
