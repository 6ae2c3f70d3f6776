"""The student's own losses. A file each."""

from cluster.dotted_path import find
from student_train.components import LOSSES
from student_train.config import LossConfig
from student_train.losses.base import StudentLoss


def student_loss(config: LossConfig) -> StudentLoss:
    """The loss of a config."""
    found: StudentLoss = find(LOSSES, config.name)(config)
    return found


__all__ = ["StudentLoss", "student_loss"]
