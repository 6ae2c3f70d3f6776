"""The one launcher of Ray Train: a loop on N workers, restarted from its last checkpoint after a failure."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from ray import train
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer

from cluster.config import ResourcesConfig
from cluster.errors import UserError
from cluster.resources import check_resources

Payload = dict[str, Any]
Loop = Callable[[Payload], None]


def run_workers(
    loop: Loop,
    payload: Payload,
    config: ResourcesConfig,
    name: str,
    output: Path | None = None,
    checkpoints: Path | None = None,
    callbacks: Sequence[UserCallback] = (),
) -> None:
    """Run ``loop(payload)`` on every worker and copy the files of the last checkpoint reported to ``output``.

    Args:
        loop: the training; its last ``ray.train.report`` carries a checkpoint with what it made.
        payload: settings for the loop; must pickle.
        config: how many workers, and what each needs.
        name: of the run, in Ray's logs and where checkpoints are kept.
        output: existing directory; none where the loop reports no checkpoint.
        checkpoints: directory that outlives this process: a run of the same name goes on from the last checkpoint that
            a stopped one left there (or in ``config.storage``). Removed when the run ends well.
        callbacks: told of every report in this process.

    Raises:
        ConfigError: the cluster is too small for the workers asked for.
        UserError: raised by the loop on any worker.
    """
    resources: dict[str, float] = {"CPU": config.cpus} | ({"GPU": 1} if config.gpu else {})
    if not config.autoscale:
        asked = {name: each * config.count for name, each in resources.items()}
        check_resources(f"{config.count} training workers", asked, "lower --resources.workers or --resources.cpus")
    with tempfile.TemporaryDirectory(prefix="dllm2rec-train-") as storage:
        trainer = TorchTrainer(
            _Worker(loop, config.cpus),
            train_loop_config=payload,
            torch_config=TorchConfig(backend="nccl" if config.gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=config.count, use_gpu=config.gpu, resources_per_worker=resources),
            run_config=RunConfig(
                name=name,
                storage_path=config.storage or str(checkpoints.absolute() if checkpoints else storage),
                failure_config=FailureConfig(max_failures=config.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
                logging_config=LoggingConfig(log_level="WARNING" if config.autoscale else "ERROR"),
                callbacks=list(callbacks),
            ),
        )
        try:
            result = trainer.fit()
        except train.TrainingFailedError as error:
            raise _user_error(error) or error from None
        if output:
            with result.checkpoint.as_directory() as finished:
                shutil.copytree(finished, output, dirs_exist_ok=True)
            result.checkpoint.filesystem.delete_dir(str(PurePosixPath(result.checkpoint.path).parent))
        if checkpoints:
            shutil.rmtree(checkpoints, ignore_errors=True)


class _Worker:
    """Runs the loop where the driver runs, so that relative paths hold, with as many threads as the worker has CPUs."""

    def __init__(self, loop: Loop, cpus: float) -> None:
        self.loop = loop
        self.threads = max(1, int(cpus))
        self.directory = Path.cwd()

    def __call__(self, payload: Payload) -> None:
        if self.directory.is_dir():
            os.chdir(self.directory)
        torch.set_num_threads(self.threads)
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        self.loop(payload)


def last_checkpoint() -> Path | None:
    """Directory of the checkpoint to resume from, inside a worker of a restarted run."""
    checkpoint = train.get_checkpoint()
    return Path(checkpoint.to_directory()) if checkpoint else None


def _user_error(error: BaseException) -> UserError | None:
    """The user's error inside a failed training, if one is the cause."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, UserError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return None
