"""What trials train on, read once and kept in Ray's object store: one copy per node, whatever the number of trials."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import ray
import torch
from ray.exceptions import RayTaskError
from torch import Tensor

from cluster.errors import UserError
from student_train.config import TrainConfig
from student_train.evaluation import metric_means
from student_train.loop import Materials, untaught_sums
from student_train.train import load_materials
from tune.space import value_at

T = TypeVar("T")
DECIDING = ("distillation.top_k", "shape.history", "filter_history")
"""The fields that materials depend on; a search has one data set and one set of labels."""


def kind(config: TrainConfig) -> str:
    """What the materials of a config depend on."""
    return ", ".join(f"{path} {value_at(config, path)}" for path in DECIDING)


def share(configs: Iterable[TrainConfig]) -> dict[str, ray.ObjectRef]:
    """Read the materials of each kind once, in a Ray worker: this process holds none.

    Raises:
        UserError: data set or labels cannot be read.
    """
    load = ray.remote(num_cpus=0, num_returns=2)(_load)
    reading = {name: load.remote(config) for name, config in {kind(config): config for config in configs}.items()}
    try:
        ray.get([done for done, _ in reading.values()])
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise
    return {name: materials for name, (_, materials) in reading.items()}


def shared_with(config: TrainConfig, shared: Mapping[str, ray.ObjectRef]) -> Materials:
    """The materials of a config. Their tensors are views of the object store: to write to them ends the process.

    A kind that is not shared, which a range of whole numbers can ask for, is read from the files.
    """
    if kind(config) not in shared:
        return load_materials(config)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return _mapped(ray.get(shared[kind(config)]), np.ndarray, torch.from_numpy)


def _load(config: TrainConfig) -> tuple[bool, Materials]:
    materials = load_materials(config)
    if materials.teacher_ndcg:
        materials.untaught = metric_means(untaught_sums(materials, config.filter_history))
    # Ray hands NumPy arrays on without a copy, but copies tensors.
    return True, _mapped(materials, Tensor, Tensor.numpy)


def _mapped(value: T, leaf: type, change: Callable[[Any], Any]) -> T:
    """A dataclass with all its arrays changed, those of dataclasses within it too."""
    parts: dict[str, Any] = {}
    for part in dataclasses.fields(value):  # type: ignore[arg-type]
        inner = getattr(value, part.name)
        if isinstance(inner, leaf):
            parts[part.name] = change(inner)
        elif dataclasses.is_dataclass(inner):
            parts[part.name] = _mapped(inner, leaf, change)
    return dataclasses.replace(value, **parts)  # type: ignore[type-var]
