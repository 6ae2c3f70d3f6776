"""The weights of students that train together: one tensor per parameter, a slice per member."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from student_train.config import TrainConfig


class Stack:
    """Stacked weights with AdamW, gradient clipping and the running average of each member.

    The optimizer is torch's own, over each member's slices: a parameter group per member.
    """

    def __init__(
        self, weights: Sequence[Mapping[str, Tensor]], configs: Sequence[TrainConfig], device: torch.device
    ) -> None:
        """Start from the weights of each member by name; they are copied."""
        self.parameters = {
            name: torch.stack([own[name].detach() for own in weights]).to(device).requires_grad_(first.requires_grad)
            for name, first in weights[0].items()
        }
        """[M, …] by name."""
        self._slices = [
            {name: nn.Parameter(values.detach()[member]) for name, values in self._trained().items()}
            for member in range(len(weights))
        ]
        groups = [
            {"params": list(own.values()), "lr": config.learning_rate, "weight_decay": config.weight_decay}
            for own, config in zip(self._slices, configs, strict=True)
        ]
        self._optimizer = torch.optim.AdamW(groups, fused=True)
        clips = [config.engine.gradient_clip or torch.inf for config in configs]
        self._clip = torch.tensor(clips, device=device)
        self._share = torch.tensor([config.weight_average for config in configs], device=device)
        self._averages = {name: values.detach().clone() for name, values in self.parameters.items()}
        self._steps = 0

    def step(self) -> None:
        """Update every member's weights with its gradients, which are gone then."""
        self._clip_gradients()
        for name, values in self._trained().items():
            gradients = [None] * len(self._slices) if values.grad is None else values.grad.unbind()
            for own, gradient in zip(self._slices, gradients, strict=True):
                own[name].grad = gradient
            values.grad = None
        self._optimizer.step()
        self._steps += 1
        # cluster.averaging; without an average the weight is 1.
        weight = 1 / (1 + self._share * self._steps)
        for name, values in self.parameters.items():
            self._averages[name].lerp_(values.detach(), _broadcast(weight, values))

    def state(self, member: int) -> dict[str, Tensor]:
        """The averaged weights of a member."""
        return {name: values[member].clone() for name, values in self._averages.items()}

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these members, in this order."""
        self._slices = [self._slices[member] for member in members]
        kept = [self._optimizer.param_groups[member] for member in members]
        self._optimizer.param_groups[:] = kept
        states = self._optimizer.state
        held = {parameter for group in kept for parameter in group["params"]}
        for parameter in [parameter for parameter in states if parameter not in held]:
            del states[parameter]
        self._clip, self._share = self._clip[members], self._share[members]
        for name, values in self.parameters.items():
            self._averages[name] = self._averages[name][members]
            self.parameters[name] = values.detach()[members].requires_grad_(values.requires_grad)
        for name, values in self._trained().items():
            for own, weights in zip(self._slices, values.detach(), strict=True):
                own[name].data = weights

    def _trained(self) -> dict[str, Tensor]:
        return {name: values for name, values in self.parameters.items() if values.requires_grad}

    def _clip_gradients(self) -> None:
        gradients = [values.grad for values in self._trained().values() if values.grad is not None]
        norms = [torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        scale = (self._clip / (norm + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(_broadcast(scale, gradient))


def _broadcast(values_M: Tensor, like: Tensor) -> Tensor:
    return values_M.view(-1, *[1] * (like.dim() - 1))
