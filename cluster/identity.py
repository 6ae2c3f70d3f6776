"""The identity of a job: what decides its result, and nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cluster.config import Config, has_effect


def deciding(config: Config) -> dict[str, Any]:
    """The settings that decide a result, nested as in the config; fields of type ``NoEffect`` are left out."""
    settings: dict[str, Any] = {}
    dumped = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        if has_effect(field):
            value = getattr(config, name)
            settings[name] = deciding(value) if isinstance(value, Config) else dumped[name]
    return settings


def digest(config: Config, inputs: Mapping[str, str]) -> str:
    """Names a job: equal for equal deciding settings and equal inputs, wherever these lie.

    Args:
        config: of the verb.
        inputs: fingerprints by name.
    """
    text = json.dumps([deciding(config), dict(inputs)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
