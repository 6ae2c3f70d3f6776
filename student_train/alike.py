"""Which trainings can train together: those of one shape, whatever their weights, learning rates and seeds."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.errors import ConfigError
from student_train.config import WITHOUT_EFFECT, TrainConfig, dro_weight, on, value_at
from student_train.components import FEATURE_BASED

WEIGHTS = (
    "distillation.lam",
    "distillation.gamma_position",
    "distillation.gamma_confidence",
    "distillation.gamma_consistency",
    "distillation.beta",
    "distillation.temperature",
    "distillation.cloze",
    "loss.dro_weight",
    "loss.dro_beta",
    "loss.gbce_calibration",
)
"""Fields that the loss of a batch reads: a number per member."""
FREE = (
    *WEIGHTS,
    "distillation.ed_weight",
    "distillation.teacher_threshold",
    "model.dropout",
    "learning_rate",
    "weight_decay",
    "average",
    "epochs",
    "evaluate_every",
    "patience",
    "seed",
    "engine.gradient_clip",
)
"""Fields in which members may differ."""
UNUSED = (*WITHOUT_EFFECT, "engine.zero_stage")
"""Fields that have no effect on one device."""
SWITCHES = (
    "distillation.lam",
    "distillation.ed_weight",
    "distillation.cloze",
    "distillation.gamma_consistency",
    "loss.dro_weight",
)
"""Free fields whose zero leaves a part out, so that all members have it or none."""


def groups(configs: Sequence[TrainConfig]) -> list[list[int]]:
    """Places of ``configs`` by the group that they can train in, in order of appearance.

    What :func:`obstacle` names trains alone: a group of one, and the only kind that ``fit_together`` refuses.
    """
    found: dict[str, list[int]] = {}
    for place, config in enumerate(configs):
        key = f"alone {place}" if obstacle(config) else json.dumps(fixed(config), sort_keys=True)
        found.setdefault(key, []).append(place)
    return list(found.values())


def check_alike(configs: Sequence[TrainConfig]) -> None:
    """Refuse configs that cannot train together.

    Raises:
        ConfigError: names the field.
    """
    for config in configs:
        if found := obstacle(config):
            raise ConfigError(f"{found} cannot train together with others: run `dllm2rec train` for it")
    first = fixed(configs[0])
    for config in configs[1:]:
        for name, value in fixed(config).items():
            if value != first[name]:
                raise ConfigError(
                    f"`{name}` is {first[name]} for one member and {value} for another: only members that agree on it "
                    "can train together"
                )


def obstacle(config: TrainConfig) -> str | None:
    """The setting for which a training must be alone, as ```field` = value``; none if there is none."""
    taught = config.labels is not None and on(config.distillation.lam)
    between = config.student == "gru4rec" and config.model.num_layers > 1 and config.model.dropout > 0
    alone = {
        # They compare the distinct items of a batch, which are not equally many for all members.
        "distillation.strategy": taught and config.distillation.strategy in FEATURE_BASED,
        # torch draws the masks between the layers of a GRU itself.
        "model.num_layers": between,
        "engine.precision": config.engine.precision != "fp32",
        "engine.accumulation": config.engine.accumulation > 1,
        "workers.count": config.workers.count > 1,
    }
    name = next((name for name, found in alone.items() if found), None)
    return f"`{name}` = {value_at(config, name)}" if name else None


def fixed(config: TrainConfig) -> dict[str, Any]:
    """What members that train together agree on, by path: settings, and whether a switch is on."""
    settings = _flat(config.model_dump(mode="json"))
    taught = config.labels is not None
    kept = {
        name: value
        for name, value in settings.items()
        if name not in FREE and not _under(name, UNUSED) and (taught or not _under(name, ("distillation",)))
    }
    switches = [name for name in SWITCHES if taught or not _under(name, ("distillation",))]
    return kept | {f"{name} > 0": on(in_effect(config, name)) for name in switches}


def in_effect(config: TrainConfig, name: str) -> Any:  # noqa: ANN401  # any field
    """The value of a field by its path, or the default that stands for none."""
    return dro_weight(config) if name == "loss.dro_weight" else value_at(config, name)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _under(name: str, sections: Sequence[str]) -> bool:
    return any(name == section or name.startswith(f"{section}.") for section in sections)
