"""The one owner of DeepSpeed calls: trainers see a module, ``backward`` and ``step``."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from cluster.averaging import RunningAverage
from cluster.config import DeepSpeedConfig
from cluster.lean_import import lean_import

TAG = "engine"
STATE = "trainer"
AVERAGE = "average"


class Engine:
    """A module under DeepSpeed: ZeRO, precision, accumulation and gradient clipping as configured.

    With ``average`` above 0 the weights given out are a running average over that share of the steps so far.
    Inside Ray Train the process group is there already; elsewhere (a search trial) a group of one is made.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: DeepSpeedConfig,
        micro_batch: int,
        average: float = 0.0,
    ) -> None:
        deepspeed = load_deepspeed()
        os.environ.setdefault("LOCAL_RANK", "0")
        if not dist.is_initialized():
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        self._deepspeed = deepspeed
        self._stage = config.zero_stage
        settings = deepspeed_settings(config, micro_batch)
        self._engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings)
        self._average = RunningAverage(self.module, average) if average else None

    @property
    def module(self) -> nn.Module:
        """The module being trained; its parameters are partitioned at ZeRO stage 3."""
        return self._engine.module

    @property
    def device(self) -> torch.device:
        """Device of this rank."""
        return torch.device(self._engine.device)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # whatever the module returns
        """Forward pass of the module."""
        return self._engine(*args, **kwargs)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of a scalar loss."""
        self._engine.backward(loss)

    def step(self) -> None:
        """Update the weights when enough micro batches are accumulated."""
        updates = self._engine.is_gradient_accumulation_boundary()
        self._engine.step()
        if updates and self._average:
            self._average.update()

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate of all parameter groups."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate

    def set_weight_decay(self, weight_decay: float) -> None:
        """Set the weight decay of all parameter groups."""
        for group in self._engine.optimizer.param_groups:
            group["weight_decay"] = weight_decay

    def state_dict(self) -> dict[str, Tensor]:
        """The whole weights in float32 on the CPU, averaged if so asked; a collective call of all ranks."""
        weights = self._average.full() if self._average else self._weights()
        return weights | {name: buffer.detach().cpu().clone() for name, buffer in self.module.named_buffers()}

    def _weights(self) -> dict[str, Tensor]:
        found = {}
        for name, parameter in self.module.named_parameters():  # one by one: at ZeRO stage 3 no device has room for all
            with self._deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
                found[name] = parameter.detach().float().cpu().clone()
        return found

    def save(self, directory: Path, state: dict[str, Any]) -> None:
        """Write this rank's part of a checkpoint with ``state`` beside it; a collective call."""
        state_of_rank = {STATE: state, AVERAGE: self._average.state() if self._average else None}
        self._engine.save_checkpoint(str(directory), tag=TAG, client_state=state_of_rank)

    def load(self, directory: Path) -> dict[str, Any]:
        """Resume from a checkpoint of the same world size and return the ``state`` saved with it."""
        _, state = self._engine.load_checkpoint(str(directory), tag=TAG)
        if self._average:
            self._average.restore(state[AVERAGE])
        return state[STATE]

    def mean(self, value: Tensor) -> Tensor:
        """Mean of ``value`` over all ranks."""
        return mean_over_workers(value)


def mean_over_workers(value: Tensor) -> Tensor:
    """Mean of ``value`` over all workers; a collective call."""
    return sum_over_workers(value) / dist.get_world_size()


def sum_over_workers(value: Tensor) -> Tensor:
    """Sum of ``value`` over all workers; a collective call. Of integers it does not depend on how these are shared."""
    # NCCL knows no tensors on the CPU.
    shared = value.cuda() if dist.get_backend() == "nccl" else value.clone()
    dist.all_reduce(shared)
    return shared.to(value.device)


def all_of_workers(part: Tensor) -> Tensor:
    """The parts of all workers [S, ...], one after another on the CPU; a collective call."""
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, part.cpu())
    return torch.cat(parts)


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Keep the engines made inside on the CPU.

    For a process that may be a user's, whose own work sees its GPUs before, meanwhile and afterwards.
    """
    place = "deepspeed.accelerator.real_accelerator"
    before = os.environ.get("DS_ACCELERATOR")
    chosen = sys.modules[place].ds_accelerator if place in sys.modules else None
    os.environ["DS_ACCELERATOR"] = "cpu"
    load_deepspeed()
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    sys.modules[place].ds_accelerator = CPU_Accelerator()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        sys.modules[place].ds_accelerator = chosen  # type: ignore[attr-defined]
        os.environ.pop("DS_ACCELERATOR")
        os.environ.update({"DS_ACCELERATOR": before} if before else {})


def load_deepspeed() -> Any:  # noqa: ANN401  # the deepspeed module
    """Import DeepSpeed without its CPU kernel builds, which cost more than a small training (docs/decisions.md)."""
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with lean_import("mlflow"):  # of its autotuner
        import deepspeed
        from deepspeed import ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def deepspeed_settings(config: DeepSpeedConfig, micro_batch: int) -> dict[str, Any]:
    """DeepSpeed's own config of a training with a torch optimizer and ``micro_batch`` rows per worker and step."""
    zero: dict[str, Any] = {"stage": config.zero_stage, "stage3_gather_16bit_weights_on_model_save": True}
    if config.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu"}
        if config.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "gradient_clipping": config.gradient_clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bf16"},
        "steps_per_print": 2**31 - 1,
    }
