"""Collaborative embedding distillation (paper, section 3.2): item embedding = b_i + ed_weight · g(z_i)."""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from student_train.config import DistillationConfig


class ProjectedTeacher(nn.Module):
    """Projected teacher embeddings g(z_i), of the items that a batch needs and no others."""

    teacher_NE: Tensor

    def __init__(self, teacher_NE: Tensor, width: int, config: DistillationConfig) -> None:
        super().__init__()
        self.register_buffer("teacher_NE", standardise(teacher_NE), persistent=False)
        self.config = config
        self.weight: float = config.ed_weight
        self.projector = projector(self.teacher_NE, width, config)
        self.projector.requires_grad_(not config.freeze_projector)

    def of(self, items: Tensor) -> Tensor:
        """Parts [U, D] of items [U]; zero for the padding index N."""
        n_items = len(self.teacher_NE)
        part_UD = self._projected(self.teacher_NE[items.clamp(max=n_items - 1)])
        return self.weight * part_UD * (items < n_items)[:, None]

    def every(self) -> Tensor:
        """Parts [N, D] of the whole catalogue."""
        return self.weight * self._projected(self.teacher_NE)

    def _projected(self, teacher_UE: Tensor) -> Tensor:
        # Buffers keep float32 where DeepSpeed makes the weights bfloat16.
        part_UD: Tensor = self.projector(teacher_UE.to(next(self.projector.parameters()).dtype))
        return part_UD


class Parts:
    """The projected embeddings of one batch, computed once however often they are looked up."""

    def __init__(self, projected: ProjectedTeacher, wanted: list[Tensor] | None) -> None:
        """Project the items of ``wanted``, or the whole catalogue for none."""
        n_items = len(projected.teacher_NE)
        items = None if wanted is None else _distinct(wanted, n_items)
        self._place: Tensor | None = None
        if items is None:
            self._table = functional.pad(projected.every(), (0, 0, 0, 1))
        else:
            self._table = projected.of(items)
            self._place = items.new_zeros(n_items + 1)
            self._place[items] = torch.arange(len(items), device=items.device)

    def __call__(self, items: Tensor | None) -> Tensor:
        """Parts [..., D] of item indices [...], or [N, D] of the catalogue."""
        if items is None:
            return self._table[:-1]
        return functional.embedding(items if self._place is None else self._place[items], self._table)


def _distinct(wanted: list[Tensor], n_items: int) -> Tensor | None:
    """The items to project; none for all. A GPU projects some twice, for to count them would be to wait for it."""
    items = torch.cat([some.flatten() for some in wanted])
    if not items.is_cuda:
        return items.unique()
    return items if len(items) < n_items else None


def projector(teacher_NE: Tensor, width: int, config: DistillationConfig) -> nn.Module:
    """g: a linear map, or an MLP with one hidden layer of twice the student's width."""
    if config.projector == "mlp":
        hidden = 2 * width
        return nn.Sequential(nn.Linear(teacher_NE.shape[1], hidden), nn.GELU(), nn.Linear(hidden, width))
    linear = nn.Linear(teacher_NE.shape[1], width)
    if config.projector_start == "pca":
        with torch.no_grad():
            components = _principal(teacher_NE, width)
            linear.weight[: len(components)] = components
            linear.weight[len(components) :] = 0
            linear.bias.zero_()
    return linear


# A search makes many students with one teacher; this takes a second of a core for 3,459 x 1,024 values.
@lru_cache(maxsize=1)
def _principal(teacher_NE: Tensor, width: int) -> Tensor:
    return torch.linalg.svd(teacher_NE, full_matrices=False).Vh[:width].clone()


@lru_cache(maxsize=1)
def standardise(teacher_NE: Tensor) -> Tensor:
    """Centre the embeddings and scale them to a mean norm of 1, so that one setting serves teachers of any scale."""
    centred_NE = teacher_NE.float() - teacher_NE.float().mean(0)
    return centred_NE / centred_NE.norm(dim=1).mean().clamp(min=1e-12)
