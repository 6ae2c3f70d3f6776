"""The student's own losses. A file each."""

from pkgutil import resolve_name

from student_train.config import LossConfig
from student_train.losses.base import StudentLoss
from student_train.components import LOSSES


def objective(config: LossConfig) -> StudentLoss:
    """The objective of a config."""
    found: StudentLoss = resolve_name(LOSSES[config.loss])(config)
    return found


__all__ = ["StudentLoss", "objective"]
