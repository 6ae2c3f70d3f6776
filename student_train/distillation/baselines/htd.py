"""Hierarchical topology distillation (Kang et al., KDD 2021) on item embeddings."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from student_train.distillation.embedding import standardise

GROUPS = 20


class HTD(nn.Module):
    """Match cosine similarities: of all pairs inside a group of similar items, and of the groups' centres.

    Items are assigned to groups from the teacher's embedding (straight-through Gumbel softmax), and a regressor per
    group, from the student's embedding to the teacher's, teaches the assignment which items belong together.
    """

    teacher_NE: Tensor

    def __init__(self, teacher_NE: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("teacher_NE", standardise(teacher_NE), persistent=False)
        self.assignment = nn.Linear(teacher_NE.shape[1], GROUPS)
        self.regressors = nn.Parameter(torch.randn(GROUPS, width, teacher_NE.shape[1]) * width**-0.5)

    def forward(self, items_U: Tensor, embedded_UD: Tensor) -> Tensor:
        """Mean squared differences of similarities inside and between groups, plus the regression error."""
        teacher_UE = self.teacher_NE[items_U].to(self.regressors.dtype)
        member_UG = functional.gumbel_softmax(self.assignment(teacher_UE), hard=True)
        # In this order nothing of U × G × E is made.
        regressed_UE = torch.einsum("ud,ug,gde->ue", embedded_UD, member_UG, self.regressors)
        regression = (regressed_UE - teacher_UE).square().sum(1).mean()
        same_UU = (member_UG @ member_UG.T).detach()
        inside = ((_similarity(embedded_UD) - _similarity(teacher_UE)).square() * same_UU).sum() / same_UU.sum()
        size_G1 = member_UG.sum(0)[:, None].clamp(min=1)
        centres = [member_UG.T @ rows / size_G1 for rows in (embedded_UD, teacher_UE)]
        between = (_similarity(centres[0]) - _similarity(centres[1])).square().mean()
        return regression + inside + between


def _similarity(rows_UD: Tensor) -> Tensor:
    normed_UD = functional.normalize(rows_UD, dim=1)
    return normed_UD @ normed_UD.T
