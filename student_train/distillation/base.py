"""What a response-based strategy sees of a batch."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from student_train.config import DistillationConfig
from student_train.losses import StudentLoss
from student_train.rows import TeacherLabels


@dataclass
class DistillationBatch:
    """One batch: the student's logits beside the teacher's lists."""

    scores_BN: Tensor
    """The student's logits."""
    target_B: Tensor
    history_BL: Tensor
    teacher: TeacherLabels
    drawn_BM: Tensor
    """Negatives of the student's own loss; [B, 0] under one of the whole catalogue."""
    popularity_N: Tensor
    """Share of each item among the train targets, smoothed by one."""
    propensity_N: Tensor
    """Of the DRO term."""
    dro_weight: float
    dro_beta: float
    config: DistillationConfig
    student_loss: StudentLoss
    generator: torch.Generator

    @cached_property
    def negative_BM(self) -> Tensor:
        """The student's logits of negatives: those of its own loss, or drawn now if it has none."""
        drawn_BM = self.drawn_BM
        if not drawn_BM.shape[1]:
            drawn_BM = self.student_loss.draw(self.target_B, self.history_BL, self.popularity_N, self.generator)
        return self.scores_BN.gather(1, drawn_BM)

    @cached_property
    def candidates_BK(self) -> Tensor:
        """The student's logits of the teacher's list."""
        return self.scores_BN.gather(1, self.teacher.items)

    @cached_property
    def student_top_BK(self) -> Tensor:
        """The student's own top K, best first."""
        return self.scores_BN.detach().topk(self.teacher.items.shape[1], dim=1).indices

    @cached_property
    def log_likelihood_BK(self) -> Tensor:
        """The student's log-likelihood of the teacher's list, as its own loss reads logits."""
        return self.student_loss.log_likelihood(self.scores_BN, self.teacher.items)

    def student_ranks(self, items_BK: Tensor) -> Tensor:
        """Ranks [B, K] from 1 that the student gives to items."""
        scores_BN = self.scores_BN.detach()
        # K counts over the catalogue cost less than sorting it.
        above = [(scores_BN > own_B[:, None]).sum(1) for own_B in scores_BN.gather(1, items_BK).unbind(1)]
        return torch.stack(above, dim=1) + 1

    def unlisted(self, count: int) -> Tensor:
        """Items [B, count] drawn uniformly, rarely one of the teacher's list."""
        rows, n_items = self.scores_BN.shape
        device = self.generator.device
        return torch.randint(n_items, (rows, count), generator=self.generator, device=device).to(self.target_B)
