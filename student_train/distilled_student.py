"""A student in training: joined with projected teacher embeddings and matched with them, where it is distilled."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cluster.errors import ConfigError
from student_train.config import DistillationConfig, ModelConfig
from student_train.distillation import feature_based
from student_train.distillation.embedding import Parts, ProjectedTeacher, projector
from student_train.models.student import Student


class StudentOutput(NamedTuple):
    """Logits [B, N], or [B, M] of the items asked for, and the loss of a feature-based strategy."""

    scores: Tensor
    feature_loss: Tensor


class DistilledStudent(nn.Module):
    """Item embedding = b_i + ed_weight · g(z_i) on the sides that the config names; plain without a teacher."""

    def __init__(self, model: ModelConfig, n_items: int, teacher_NE: Tensor | None, config: DistillationConfig) -> None:
        super().__init__()
        self.student = Student(model, n_items)
        self.projected: ProjectedTeacher | None = None
        self.feature_loss: nn.Module | None = None
        self.sides: tuple[str, ...] = ()
        if teacher_NE is None:
            return
        if config.uses_teacher_embeddings:
            check_sides(model, config)
            self.sides = ("input", "output") if config.embedding == "both" else (config.embedding,)
            self.projected = ProjectedTeacher(teacher_NE, model.hidden_size, config)
            if not config.offset:
                self._drop_offsets()
        module = feature_based(config.strategy) if config.lam else None
        if module is not None:
            self.feature_loss = module(teacher_NE, model.hidden_size)

    def forward(
        self, history_BL: Tensor, items_BM: Tensor | None = None, compared_U: Tensor | None = None
    ) -> StudentOutput:
        """Score ``items_BM``, or the whole catalogue for none; see :class:`Student`.

        ``compared_U`` are the items of the histories that a feature-based strategy compares, each once; none for zero.
        """
        part_in = part_out = None
        if self.projected is not None:
            parts = Parts(self.projected, self._wanted(history_BL, items_BM))
            part_in, part_out = (parts if side in self.sides else None for side in ("input", "output"))
        scores = self.student(history_BL, items_BM, part_in, part_out)
        feature_loss = scores.new_zeros(())
        if self.feature_loss is not None and compared_U is not None:
            embedded_UD = self.student.items(compared_U)
            if part_in is not None:
                embedded_UD = embedded_UD + part_in(compared_U)
            feature_loss = self.feature_loss(compared_U, embedded_UD)
        return StudentOutput(scores, feature_loss)

    def set_embedding_weight(self, weight: float) -> None:
        """Change the weight of the projected teacher embeddings from the next batch on."""
        if self.projected is not None:
            self.projected.weight = weight

    def _wanted(self, history_BL: Tensor, items_BM: Tensor | None) -> list[Tensor] | None:
        """The items that need a projected embedding; none for all."""
        if "output" not in self.sides:
            return [history_BL]
        if items_BM is None:
            return None
        return [items_BM, history_BL] if "input" in self.sides else [items_BM]

    def _drop_offsets(self) -> None:
        tables = {"input": self.student.items, "output": self.student.output}
        for table in (tables[side] for side in self.sides):
            if table is not None:
                nn.init.zeros_(table.weight)
                table.weight.requires_grad_(False)


def check_sides(model: ModelConfig, config: DistillationConfig) -> None:
    """Refuse teacher embeddings on one side of a table that both sides share.

    Raises:
        ConfigError: see above.
    """
    if model.output == "tied" and config.embedding in ("input", "output"):
        raise ConfigError(
            f"`distillation.embedding` = {config.embedding}, but `model.output` = tied has one item table for both "
            "sides: set `model.output` to separate, or `distillation.embedding` to both"
        )


def fold(state: dict[str, Tensor], distilled: DistilledStudent) -> dict[str, Tensor]:
    """Weights of the plain student that scores exactly like ``distilled`` with weights ``state``.

    Args:
        state: full float32 weights of ``distilled``, on one device.
        distilled: says which parts there are.
    """
    plain = {name.removeprefix("student."): value for name, value in state.items() if name.startswith("student.")}
    if distilled.projected is None:
        return plain
    prefix = "projected.projector."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    device = plain["items.weight"].device
    teacher_NE = distilled.projected.teacher_NE.to(device)
    # Not its own projector, whose weights ZeRO stage 3 keeps elsewhere.
    untrained = distilled.projected.config.model_copy(update={"projector_start": "random"})
    trained = projector(teacher_NE, plain["items.weight"].shape[1], untrained).to(device)
    trained.load_state_dict(weights)
    with torch.no_grad():
        part_ND = distilled.projected.weight * trained(teacher_NE)
    if "input" in distilled.sides:
        plain["items.weight"] = plain["items.weight"] + functional.pad(part_ND, (0, 0, 0, 1))
    if "output" in distilled.sides and "output.weight" in plain:
        plain["output.weight"] = plain["output.weight"] + part_ND
    return plain
