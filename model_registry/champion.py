"""The aliases of a registered model: ``champion``, ``challenger`` and ``previous``, and how they move.

MLflow knows no alias that moves only if nobody moved it meanwhile. So a promotion leaves a claim on its version, a tag
that names the champion it was better than, before it moves the alias; whoever has moved it looks at the claims again
and gives it to the best of those that claim the same place. The last to look sees all of them.
"""

import math

from cluster.errors import ModelError
from cluster.run_record import metric_name
from model_registry.versions import ModelVersion, Registry

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
METRIC = "validation_ndcg@20"
CLAIM = "promoted_over"
_NOBODY = "nobody"


def set_champion(registry: Registry, candidate: ModelVersion, champion: ModelVersion | None) -> ModelVersion:
    """Make ``candidate``, found better than ``champion``, the champion; returns who is in the end.

    That is another version if one was promoted over the same champion at the same time and is better still, or if the
    place went meanwhile to one that ``candidate`` was never compared with.
    """
    _forget_claims_over(registry, candidate)
    over = str(champion.version) if champion else _NOBODY
    registry.set_tag(candidate, CLAIM, over)
    while True:
        # In this order: whoever has the place by now has claimed it before.
        present = registry.with_alias(candidate.name, CHAMPION)
        rivals = [version for version in registry.versions(candidate.name) if version.tags.get(CLAIM) == over]
        best = max(rivals, key=lambda version: (_figure(version), -version.version))
        if present and str(present.version) not in (over, *(str(rival.version) for rival in rivals)):
            registry.set_tag(candidate, CLAIM, None)
            return present
        if present and present.version == best.version:
            break
        registry.set_alias(best, CHAMPION)
    if champion:
        registry.set_alias(champion, PREVIOUS)
    name_challenger(registry, candidate.name)
    return best


def roll_back(registry: Registry, name: str) -> tuple[ModelVersion, ModelVersion]:
    """Give the champion's place back to ``previous``; returns the new champion and the one that was.

    Raises:
        ModelError: there is no champion, or none before it.
    """
    champion, previous = registry.with_alias(name, CHAMPION), registry.with_alias(name, PREVIOUS)
    if champion is None:
        raise ModelError(f"`{name}` has no {CHAMPION}: run `dllm2rec promote` first")
    if previous is None:
        raise ModelError(
            f"`{name}` has no {PREVIOUS} {CHAMPION} before version {champion.version}: name the version wanted with "
            "`dllm2rec promote --version`"
        )
    _forget_claims_over(registry, previous)
    registry.set_alias(previous, CHAMPION)
    registry.delete_alias(name, PREVIOUS)
    name_challenger(registry, name)
    return previous, champion


def name_challenger(registry: Registry, name: str) -> None:
    """Give ``challenger`` to the newest version registered after the champion; to none if the champion is newest."""
    newest, champion = registry.version(name), registry.with_alias(name, CHAMPION)
    if champion is None or newest.version > champion.version:
        registry.set_alias(newest, CHALLENGER)
    else:
        registry.delete_alias(name, CHALLENGER)


def _forget_claims_over(registry: Registry, model: ModelVersion) -> None:
    """Remove claims from an earlier time in which ``model`` was the champion."""
    for version in registry.versions(model.name):
        if version.tags.get(CLAIM) == str(model.version):
            registry.set_tag(version, CLAIM, None)


def _figure(model: ModelVersion) -> float:
    return float(model.tags.get(metric_name(METRIC), -math.inf))
