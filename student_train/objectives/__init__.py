"""The student's own losses. A file each; register it here."""

from student_train.config import ObjectiveConfig
from student_train.objectives.base import Objective
from student_train.objectives.bce import BCE
from student_train.objectives.gbce import GBCE
from student_train.objectives.sampled_softmax import SampledSoftmax
from student_train.objectives.softmax import Softmax

OBJECTIVES: dict[str, type[Objective]] = {
    "softmax": Softmax,
    "sampled_softmax": SampledSoftmax,
    "bce": BCE,
    "gbce": GBCE,
}


def objective(config: ObjectiveConfig) -> Objective:
    """The objective of a config."""
    return OBJECTIVES[config.loss](config)


__all__ = ["OBJECTIVES", "Objective", "objective"]
