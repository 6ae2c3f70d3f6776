"""Ways to rank: a file each."""

from teacher_infer.rankers.base import Ranked, Ranker, Rows

__all__ = ["Ranked", "Ranker", "Rows"]
