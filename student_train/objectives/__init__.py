"""The student's own losses. A file each."""

from pkgutil import resolve_name

from student_train.config import ObjectiveConfig
from student_train.objectives.base import Objective
from student_train.registry import OBJECTIVES


def objective(config: ObjectiveConfig) -> Objective:
    """The objective of a config."""
    found: Objective = resolve_name(OBJECTIVES[config.loss])(config)
    return found


__all__ = ["Objective", "objective"]
