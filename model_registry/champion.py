"""The aliases of a registered model: ``champion``, ``challenger`` and ``previous``, and how they move."""

from cluster.errors import ModelError
from model_registry.versions import ModelVersion, Registry

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"


def set_champion(registry: Registry, candidate: ModelVersion) -> ModelVersion | None:
    """Make ``candidate`` the champion; returns the version that was, which becomes ``previous``."""
    was = registry.with_alias(candidate.name, CHAMPION)
    registry.set_alias(candidate, CHAMPION)
    if was:
        registry.set_alias(was, PREVIOUS)
    name_challenger(registry, candidate.name)
    return was


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
