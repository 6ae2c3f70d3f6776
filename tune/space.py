"""The space of a search: which fields of ``train`` it varies, and what may stand there."""

import math
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import product

from pydantic import ValidationError

from cluster.config import Config, describe, has_effect
from cluster.errors import ConfigError
from student_train.config import TrainConfig, value_at
from student_train.train import check_inputs
from tune.config import Domain, TuneConfig, Value

Space = dict[str, Domain]
Point = Mapping[str, Value]
"""Values by the path of their field."""

_WEIGHTS: Space = {
    "distillation.lam": Domain(low=0.1, high=2.0),
    "distillation.ed_weight": Domain(low=0.1, high=6.0, log=True),
}
_LEARNING_RATE: Space = {"learning_rate": Domain(low=3e-4, high=5e-3, log=True)}
_GAMMAS: Space = {
    f"distillation.gamma_{name}": Domain(low=0.0, high=1.0) for name in ("position", "confidence", "consistency")
}
_OF_STRATEGY: dict[str, Space] = {
    "soft": {"distillation.temperature": Domain(low=0.1, high=2.0, log=True)},
    "dllm2rec": _GAMMAS,
    "dllm2rec-official": _GAMMAS,
}
_NOT_SEARCHED = {
    "dataset": "it is the data that trials are compared on",
    "labels": "they are the teacher that trials are compared with",
    "seed": "give --seeds",
    "resources": "all trials ask for the same ones, `resources` of the search",
}
_JOINED = ("distillation.embedding", ("both", "input", "output"))
_PAPER = ("distillation.strategy", ("dllm2rec", "dllm2rec-official"))
_HAS_EFFECT_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "distillation.temperature": ("distillation.strategy", ("soft",)),
    "distillation.weigh_rows": ("distillation.strategy", ("soft",)),
    "distillation.gamma_position": _PAPER,
    "distillation.gamma_confidence": _PAPER,
    "distillation.gamma_consistency": _PAPER,
    "distillation.beta": ("distillation.strategy", (*_PAPER[1], "rd")),
    "distillation.ed_weight": _JOINED,
    "distillation.projector": _JOINED,
    "distillation.projector_start": ("distillation.projector", ("linear",)),
    "distillation.freeze_projector": _JOINED,
    "distillation.offset": _JOINED,
    "loss.negatives": ("loss.name", ("sampled_softmax", "bce", "gbce")),
    "loss.gbce_calibration": ("loss.name", ("gbce",)),
    "model.num_heads": ("model.name", ("sasrec", "dros", "hstu")),
}
"""Fields that matter only where another one has one of these values."""


def space_of(config: TuneConfig) -> Space:
    """The space of a search: the one given, or the weights of the strategy and the learning rate."""
    if config.search.space:
        return dict(config.search.space)
    if config.train.labels is None:
        return _LEARNING_RATE
    return _WEIGHTS | _LEARNING_RATE | _OF_STRATEGY.get(config.train.distillation.strategy, {})


def point_config(train: TrainConfig, point: Point) -> TrainConfig:
    """``train`` with the values of a point put in.

    Raises:
        pydantic.ValidationError: a value is out of the range that ``train`` allows.
    """
    settings = train.model_dump()
    for path, value in point.items():
        *sections, name = path.split(".")
        section = settings
        for outer in sections:
            if not isinstance(section.get(outer), dict):  # refused below
                section[outer] = {}
            section = section[outer]
        section[name] = value
    return TrainConfig.model_validate(settings)


def identity(train: TrainConfig, point: Point) -> str:
    """Equal for points that train the same student: fields that have no effect beside the others are left out."""
    try:
        config = point_config(train, point)
    except ValidationError:
        return repr(sorted(point.items()))
    kept = [path for path in point if path not in _HAS_EFFECT_WITH or _in_effect(config, path)]
    return repr([(path, value_at(config, path)) for path in sorted(kept)])


def _in_effect(config: TrainConfig, path: str) -> bool:
    decides, needed = _HAS_EFFECT_WITH[path]
    return value_at(config, decides) in needed


def grid(space: Space) -> Iterator[dict[str, Value]]:
    """All points of a space of values, the last field changing fastest."""
    for values in product(*(domain.ends() for domain in space.values())):
        yield dict(zip(space, values, strict=True))


def check_space(config: TuneConfig, train: TrainConfig) -> Space:
    """The space, after checking every field of it.

    Raises:
        ConfigError: names the field and what to do.
    """
    space = space_of(config)
    for path in space:
        _check_path(path)
        _check_effect(path, space, train)
    for path, domain in space.items():
        if config.search.algorithm == "grid" and domain.values is None:
            raise ConfigError(f"`search.space` gives {path} a range, of which a grid has no end: list its values")
        for value in domain.ends():
            _check_value(train, {path: value})
    if config.search.algorithm == "grid" and math.prod(len(domain.ends()) for domain in space.values()) <= 1000:
        for point in grid(space):
            _check_value(train, point)
    if config.search.scheduler == "pbt":
        _check_moving(space)
    return space


def _paths(model: type[Config], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Config):
            yield from _paths(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _check_path(path: str) -> None:
    known = list(_paths(TrainConfig))
    if path not in known:
        last = path.rpartition(".")[2]
        similar = [name for name in known if name.rpartition(".")[2] == last] or get_close_matches(path, known, 1, 0.4)
        hint = f": perhaps {similar[0]}" if similar else ": `dllm2rec train --help` lists them"
        raise ConfigError(f"`search.space` names {path}, which is no field of `train`{hint}")
    section = path.partition(".")[0]
    if section in _NOT_SEARCHED or not has_effect(TrainConfig.model_fields[section]):
        reason = _NOT_SEARCHED.get(section, "it changes no result")
        raise ConfigError(f"`search.space` names {path}, which cannot be searched: {reason}")


def _check_effect(path: str, space: Space, train: TrainConfig) -> None:
    if train.labels is None and path.startswith("distillation."):
        raise ConfigError(
            f"`search.space` names {path}, which has no effect without a teacher: give --train.labels or leave it out"
        )
    if path not in _HAS_EFFECT_WITH:
        return
    decides, needed = _HAS_EFFECT_WITH[path]
    possible = space[decides].ends() if decides in space else (value_at(train, decides),)
    if not set(possible) & set(needed):
        raise ConfigError(
            f"`search.space` names {path}, which has no effect with {decides} {possible[0]}: leave it out or set "
            f"{decides} to {' or '.join(needed)}"
        )


def _check_value(train: TrainConfig, point: Point) -> None:
    try:
        check_inputs(point_config(train, point))
    except ValidationError as error:
        raise ConfigError(f"`search.space` reaches values that training refuses: {describe(error)}") from error
    except ConfigError as error:
        raise ConfigError(f"`search.space` reaches values that training refuses: {error}") from error


def _check_moving(space: Space) -> None:
    """Weights are handed on in PBT, so that what fixes their shapes has to stand still."""
    fixed = ("model", "distillation.projector", "distillation.strategy", "distillation.embedding")
    for path in space:
        if path.startswith(fixed) and path not in ("model.dropout", "distillation.projector_start"):
            raise ConfigError(
                f"`search.space` names {path}, which weights that are handed on (`search.scheduler` = pbt) do not "
                "survive: leave it out or choose another scheduler"
            )
