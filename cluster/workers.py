"""The one launcher of Ray Train: a loop on N workers, restarted from its last checkpoint after a failure."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from ray import train
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer

from cluster.checkpoints import remove_checkpoints
from cluster.config import ResourcesConfig
from cluster.devices import see_gpus
from cluster.errors import UserError
from cluster.files import arrow, copy_into
from cluster.paths import storage_path
from cluster.probe import Probe
from cluster.resources import check_resources

Payload = dict[str, Any]
Loop = Callable[[Payload], None]


def run_workers(
    loop: Loop,
    payload: Payload,
    resources: ResourcesConfig,
    *,
    name: str,
    storage: str,
    max_failures: int = 0,
    output: Path | None = None,
    probe: Probe | None = None,
    keep_lowest: str | None = None,
    callbacks: Sequence[UserCallback] = (),
) -> dict[str, Any]:
    """Run ``loop(payload)`` on every worker and copy the files of the last checkpoint reported to ``output``.

    A run of the same name in the same storage resumes from the last checkpoint that a stopped one left there. What the
    run keeps in the storage is removed when it ends well, or for an error of the user's.

    Args:
        loop: the training; its last ``ray.train.report`` carries a checkpoint with what it made.
        payload: settings for the loop; must pickle.
        resources: how many workers, and what each needs.
        name: the identity of the run (:func:`cluster.identity.digest`): no other training may have it.
        storage: directory or URI that all machines reach, see :func:`cluster.checkpoints.checkpoint_storage`.
        max_failures: restarts from the last checkpoint after a worker dies.
        output: existing directory; none where the loop reports no checkpoint.
        probe: what every worker has to see before it begins.
        keep_lowest: besides the last checkpoint, keep the one that was reported with the lowest value of this metric.
        callbacks: called with every report in this process.

    Returns:
        what the last checkpoint was reported with.

    Raises:
        ConfigError: the cluster is too small for the workers asked for.
        UserError: raised by the loop on any worker.
    """
    _check_room(resources)
    place, filesystem = arrow(storage_path(storage))
    trainer = TorchTrainer(
        _Worker(loop, resources, probe),
        train_loop_config=payload,
        torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo"),
        scaling_config=_scaling(resources),
        run_config=RunConfig(
            name=name,
            storage_path=place,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(1, checkpoint_score_attribute=keep_lowest, checkpoint_score_order="min"),
            logging_config=LoggingConfig(log_level="WARNING" if resources.autoscale else "ERROR"),
            callbacks=list(callbacks),
        ),
    )
    try:
        result = trainer.fit()
    except train.TrainingFailedError as error:
        found = _user_error(error)
        if found:
            remove_checkpoints(storage, name)
        raise found or error from None
    if output:
        with result.checkpoint.as_directory() as finished:
            copy_into(Path(finished), output)
    remove_checkpoints(storage, name)
    return result.metrics or {}


def _check_room(resources: ResourcesConfig) -> None:
    """Refuse more workers than the cluster can ever hold, unless it grows."""
    if not resources.autoscale:
        asked = {kind: amount * resources.workers for kind, amount in resources.per_worker().items()}
        remedy = "lower --resources.workers or --resources.cpus"
        check_resources(f"{resources.workers} training workers", asked, remedy)


def _scaling(resources: ResourcesConfig) -> ScalingConfig:
    return ScalingConfig(
        num_workers=resources.workers,
        use_gpu=resources.gpus > 0,
        resources_per_worker=resources.per_worker(),
        accelerator_type=resources.accelerator_type,
    )


class _Worker:
    """Runs the loop where the driver runs, so that relative paths hold, with as many threads as the worker has CPUs."""

    def __init__(self, loop: Loop, resources: ResourcesConfig, probe: Probe | None) -> None:
        self.loop, self.resources, self.probe = loop, resources, probe
        self.directory = Path.cwd()

    def __call__(self, payload: Payload) -> None:
        if self.probe:
            self.probe.check()
        if self.directory.is_dir():
            os.chdir(self.directory)
        see_gpus(self.resources.gpus)
        torch.set_num_threads(self.resources.threads)
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        self.loop(payload)


def _user_error(error: BaseException) -> UserError | None:
    """The user's error inside a failed training, if one is the cause."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, UserError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return None
