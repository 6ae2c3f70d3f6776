"""Listwise distillation: the distribution of the student is drawn towards that of the teacher over its list."""

import torch
from torch import Tensor
from torch.nn import functional

from student_train.distillation.base import Lesson


def soft(lesson: Lesson) -> Tensor:
    """Mean over rows of the cross-entropy of the student's softmax against the teacher's over its list.

    The teacher's logits are its scores in standard deviations over the train rows, divided by the temperature. The
    cross-entropy differs from the KL divergence by the teacher's entropy, which has no gradient.
    """
    teacher_BK = torch.softmax(lesson.teacher.logits / lesson.config.temperature, dim=1)
    student_BK = functional.log_softmax(lesson.scores_BN, dim=1).gather(1, lesson.teacher.items)
    return -(teacher_BK * student_BK).sum(1).mean()
