"""What trials train on, read once and kept in Ray's object store: one copy per node, whatever the number of trials."""

import dataclasses
import warnings
from collections.abc import Iterable
from functools import cache

import ray
import torch
from ray.exceptions import RayTaskError
from ray.util import register_serializer

from cluster.errors import UserError
from student_train.config import TrainConfig
from student_train.loop import TrainingData
from student_train.rows import Rows
from student_train.worker import load_data


def share(configs: Iterable[TrainConfig]) -> ray.ObjectRef:
    """Read the data of configs with one data set and one set of labels, in a Ray worker: this process holds none.

    Trials cut the histories and the teacher's lists to the lengths that they ask for.

    Raises:
        UserError: data set or labels cannot be read.
    """
    some = list(configs)
    length = max(config.model.max_length for config in some)
    top_k = max(config.distillation.top_k for config in some)
    longest = some[0].model_copy(
        update={
            "model": some[0].model.model_copy(update={"max_length": length}),
            "distillation": some[0].distillation.model_copy(update={"top_k": top_k}),
        }
    )
    try:
        done, data = ray.remote(num_cpus=0, num_returns=2)(_load).remote(longest)
        ray.get(done)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise
    return data


def shared_with(config: TrainConfig, data: ray.ObjectRef | None) -> TrainingData:
    """The shared data of a config. Their tensors are views of the object store: to write to them ends the process."""
    if data is None:
        return load_data(config)
    shared = _fetched(data)
    return dataclasses.replace(shared, train=_cut(shared.train, config), validation=_cut(shared.validation, config))


def _cut(rows: Rows, config: TrainConfig) -> Rows:
    """Rows with the newest items of the histories and the first of the teacher's lists."""
    teacher, top_k = rows.teacher, config.distillation.top_k
    if teacher is not None:
        teacher = teacher.map(lambda values: values[:, :top_k] if values.dim() > 1 else values)
    return dataclasses.replace(rows, history=rows.history[:, -config.model.max_length :], teacher=teacher)


# The same tensors for all trials of a process: what is computed from the teacher's is kept by the tensor.
@cache
def _fetched(data: ray.ObjectRef) -> TrainingData:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return ray.get(data)


def _load(config: TrainConfig) -> tuple[bool, TrainingData]:
    # Ray hands NumPy arrays on without a copy, but copies tensors.
    register_serializer(torch.Tensor, serializer=torch.Tensor.numpy, deserializer=torch.from_numpy)
    return True, load_data(config)
