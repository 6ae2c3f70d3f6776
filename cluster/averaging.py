"""A running average of the weights in training."""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


class RunningAverage:
    """Polynomial-decay average (Shamir & Zhang, ICML 2013, section 3.2): the latest weights count most.

    It reaches back over a constant share of the steps made so far, so that one setting serves short and long trainings.
    At ZeRO stage 3 each rank averages its own partition.
    """

    def __init__(self, module: nn.Module, share: float) -> None:
        """Start from the present weights; ``share`` of the steps is averaged over, in (0, 1]."""
        self._parameters = dict(module.named_parameters())
        self._share = share
        self._steps = 0
        self._averages = {name: _own(p).clone().float() for name, p in self._parameters.items()}

    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        self._steps += 1
        weight = 1 / (1 + self._share * self._steps)
        for name, parameter in self._parameters.items():
            self._averages[name].lerp_(_own(parameter).float(), weight)

    def full(self) -> dict[str, Tensor]:
        """The averages in float32 on the CPU, complete; a collective call at ZeRO stage 3."""
        return {name: _whole(p, self._averages[name]).cpu().clone() for name, p in self._parameters.items()}

    def state(self) -> dict[str, Any]:
        """This rank's part, for a checkpoint."""
        return {"steps": self._steps, "averages": {name: a.cpu() for name, a in self._averages.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from what :meth:`state` gave."""
        self._steps = state["steps"]
        for name, average in state["averages"].items():
            self._averages[name].copy_(average)


def _own(parameter: nn.Parameter) -> Tensor:
    """What this rank holds of a parameter: all of it, or its partition at ZeRO stage 3."""
    own: Tensor = getattr(parameter, "ds_tensor", parameter)
    return own.detach()


def _whole(parameter: Any, own: Tensor) -> Tensor:  # noqa: ANN401  # ZeRO stage 3 gives parameters fields of its own
    if not hasattr(parameter, "ds_tensor"):
        return own
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return torch.cat([part.flatten() for part in parts])[: parameter.ds_numel].view(parameter.ds_shape)
