"""The student: an item table, a backbone, scores over the catalogue; and the same with projected teacher embeddings."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from student_train.backbones import BACKBONES
from student_train.config import StudentConfig

INITIAL_SCALE = 0.02


class Student(nn.Module):
    """A plain sequential recommender; what is exported and served."""

    def __init__(self, name: str, shape: StudentConfig, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.items = nn.Embedding(n_items + 1, shape.width, padding_idx=n_items)
        self.backbone = BACKBONES[name](shape)
        self.output = nn.Embedding(n_items, shape.width) if shape.output == "separate" else None
        self.bias = nn.Parameter(torch.zeros(n_items))
        for table in (self.items, self.output):
            if table is not None:
                nn.init.normal_(table.weight, std=INITIAL_SCALE)
        with torch.no_grad():
            self.items.weight[n_items].zero_()

    def forward(self, history_BL: Tensor, teacher_part_ND: Tensor | None = None) -> Tensor:
        """Scores of every item as the next one.

        Args:
            history_BL: item indices, newest last, padded on the left with N.
            teacher_part_ND: added to the item table, on the input side and, where the table is tied, the output side.

        Returns:
            Logits [B, N].
        """
        table = self.items.weight
        if teacher_part_ND is not None:
            table = table + functional.pad(teacher_part_ND, (0, 0, 0, 1))
        states_BD = self.backbone(functional.embedding(history_BL, table), history_BL != self.n_items)
        output_ND = self.output.weight if self.output is not None else table[:-1]
        return functional.linear(states_BD, output_ND, self.bias)


class DistilledStudent(nn.Module):
    """A student whose item embeddings are a learned per-item offset plus the projected teacher embedding.

    Collaborative embedding distillation (paper, section 3.2): item embedding = b_i + ed_weight · g(z_i), g linear.
    """

    teacher_NE: Tensor

    def __init__(self, student: Student, teacher_NE: Tensor, ed_weight: float) -> None:
        super().__init__()
        self.student = student
        self.ed_weight = ed_weight
        self.projector = nn.Linear(teacher_NE.shape[1], student.items.embedding_dim)
        self.register_buffer("teacher_NE", standardise(teacher_NE), persistent=False)

    def forward(self, history_BL: Tensor) -> Tensor:
        """Logits [B, N] of every item as the next one."""
        return self.student(history_BL, self.ed_weight * self.projector(self.teacher_NE))


def standardise(teacher_NE: Tensor) -> Tensor:
    """Centre the embeddings and scale them to a mean norm of 1, so that one setting serves teachers of any scale."""
    centred_NE = teacher_NE.float() - teacher_NE.float().mean(0)
    return centred_NE / centred_NE.norm(dim=1).mean().clamp(min=1e-12)


def fold(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights of the plain student that scores exactly like ``model`` with weights ``state``.

    Args:
        state: full float32 weights of ``model``, on the CPU.
        model: a :class:`Student` (returned as is) or a :class:`DistilledStudent`.
    """
    if not isinstance(model, DistilledStudent):
        return state
    plain = {name.removeprefix("student."): value for name, value in state.items() if name.startswith("student.")}
    projected_ND = functional.linear(model.teacher_NE.cpu(), state["projector.weight"], state["projector.bias"])
    plain["items.weight"] = plain["items.weight"] + functional.pad(model.ed_weight * projected_ND, (0, 0, 0, 1))
    return plain
