"""What trials train on, read once and kept in Ray's object store: one copy per node, whatever the number of trials."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

import numpy as np
import ray
import torch
from ray.exceptions import RayTaskError
from torch import Tensor

from cluster.errors import UserError
from student_train.config import TrainConfig, value_at
from student_train.loop import TrainingData
from student_train.rows import Rows
from student_train.train import load_data

T = TypeVar("T")
TOP_K, HISTORY, FILTER = "distillation.top_k", "model.max_length", "filter_history"
DECIDING = (TOP_K, HISTORY, FILTER)
"""The fields that shared_data depend on; a search has one data set and one set of labels."""


def kind(config: TrainConfig) -> str:
    """What the shared_data of a config depend on, but for the length of the teacher's lists, which can be cut."""
    return ", ".join(f"{path} {value_at(config, path)}" for path in (HISTORY, FILTER))


def share(configs: Iterable[TrainConfig]) -> dict[str, ray.ObjectRef]:
    """Read the shared_data of each kind once, with the longest lists, in a Ray worker: this process holds none.

    Raises:
        UserError: data set or labels cannot be read.
    """
    load = ray.remote(num_cpus=0, num_returns=2)(_load)
    longest_last = sorted(configs, key=lambda config: config.distillation.top_k)
    reading = {name: load.remote(config) for name, config in {kind(config): config for config in longest_last}.items()}
    try:
        ray.get([done for done, _ in reading.values()])
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise
    return {name: shared_data for name, (_, shared_data) in reading.items()}


def shared_with(config: TrainConfig, shared: Mapping[str, ray.ObjectRef]) -> TrainingData:
    """The shared_data of a config. Their tensors are views of the object store: to write to them ends the process.

    A kind that is not shared, which a range of whole numbers can ask for, is read from the files.
    """
    if kind(config) not in shared:
        return load_data(config)
    shared_data = _fetched(shared[kind(config)])
    return dataclasses.replace(shared_data, train=_cut(shared_data.train, config.distillation.top_k))


def _cut(rows: Rows, top_k: int) -> Rows:
    """Rows with the first ``top_k`` of the teacher's lists."""
    if rows.teacher is None:
        return rows
    return dataclasses.replace(
        rows, teacher=rows.teacher.map(lambda values: values[:, :top_k] if values.dim() > 1 else values)
    )


# The same tensors for all trials of a process: what is computed from the teacher's is kept by the tensor.
@cache
def _fetched(shared_data: ray.ObjectRef) -> TrainingData:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return _mapped(ray.get(shared_data), np.ndarray, torch.from_numpy)


def _load(config: TrainConfig) -> tuple[bool, TrainingData]:
    shared_data = load_data(config)
    # Ray hands NumPy arrays on without a copy, but copies tensors.
    return True, _mapped(shared_data, Tensor, Tensor.numpy)


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
