"""Listwise distillation: the distribution of the student is drawn towards that of the teacher over its list."""

import torch
from torch import Tensor
from torch.nn import functional

from student_train.distillation.base import DistillationBatch


def soft(batch: DistillationBatch) -> Tensor:
    """``distillation_scale`` times the mean over rows of the student's cross-entropy with the teacher's softmax.

    Over the teacher's list, whose logits are the teacher's scores in standard deviations over the train rows, divided
    by the temperature. The cross-entropy differs from the KL divergence by the teacher's entropy, which has no
    gradient.
    """
    teacher_BK = torch.softmax(batch.teacher.logits / batch.config.temperature, dim=1)
    student_BK = functional.log_softmax(batch.scores_BN, dim=1).gather(1, batch.teacher.items)
    loss_B = -(teacher_BK * student_BK).sum(1)
    if batch.config.weigh_rows:
        loss_B = loss_B * row_weights(batch)
    return batch.student_loss.distillation_scale * loss_B.mean()


def row_weights(batch: DistillationBatch) -> Tensor:
    """Weights [B] in (0, 2) from the ranks that student and teacher give the true item; 1 where these are equal.

    2 log(1 + r_s) / (log(1 + r_s) + log(1 + r_t)): large where the teacher finds what the student does not. Beyond the
    teacher's list r_t is K + 1.
    """
    top_k = batch.teacher.items.shape[1]
    found_BK = batch.teacher.items == batch.target_B[:, None]
    teacher_B = torch.where(found_BK.any(1), found_BK.int().argmax(1), top_k) + 1
    student_B = batch.student_ranks(batch.target_B[:, None]).squeeze(1)
    behind_B, ahead_B = torch.log1p(student_B.float()), torch.log1p(teacher_B.float())
    return 2 * behind_B / (behind_B + ahead_B)
