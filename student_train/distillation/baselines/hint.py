"""Hint regression (FitNets; Romero et al., ICLR 2015) on item embeddings."""

from torch import Tensor, nn

from student_train.distillation.embedding import standardise


class Hint(nn.Module):
    """Squared error of the teacher's embedding as a learned linear function of the student's."""

    teacher_NE: Tensor

    def __init__(self, teacher_NE: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("teacher_NE", standardise(teacher_NE), persistent=False)
        self.regressor = nn.Linear(width, teacher_NE.shape[1])

    def forward(self, items_U: Tensor, embedded_UD: Tensor) -> Tensor:
        """Mean over items of ‖r(e_i) − z_i‖²."""
        return (self.regressor(embedded_UD) - self.teacher_NE[items_U]).square().sum(1).mean()
