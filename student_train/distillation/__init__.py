"""What a student takes from a teacher. A file per strategy; register it here.

A ranking strategy is a function of a :class:`Lesson` to a scalar. A matching strategy is a module that is trained with
the student and compares item embeddings with the teacher's.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from student_train.distillation.base import Lesson
from student_train.distillation.cd import cd
from student_train.distillation.dcd import dcd
from student_train.distillation.dllm2rec import dllm2rec
from student_train.distillation.hint import Hint
from student_train.distillation.htd import HTD
from student_train.distillation.official import dllm2rec_official
from student_train.distillation.rd import rd
from student_train.distillation.rrd import rrd
from student_train.distillation.soft import soft
from student_train.distillation.unkd import unkd

RankingStrategy = Callable[[Lesson], Tensor]


class Matching(Protocol):
    """Builds a module ``forward(items_U, embedded_UD) -> scalar``."""

    def __call__(self, teacher_NE: Tensor, width: int) -> nn.Module:
        """For teacher embeddings [N, E] and students of width D."""
        ...


RANKINGS: dict[str, RankingStrategy] = {
    "soft": soft,
    "dllm2rec": dllm2rec,
    "dllm2rec-official": dllm2rec_official,
    "rd": rd,
    "cd": cd,
    "rrd": rrd,
    "dcd": dcd,
    "unkd": unkd,
}
MATCHINGS: dict[str, Matching] = {"hint": Hint, "htd": HTD}

__all__ = ["MATCHINGS", "RANKINGS", "Lesson", "Matching", "RankingStrategy"]
