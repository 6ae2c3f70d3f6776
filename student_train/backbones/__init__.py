"""Sequence backbones: embedded histories [B, L, D] to states [B, D]. A file each; register it here."""

from typing import Protocol

from torch import Tensor, nn

from student_train.backbones.caser import Caser
from student_train.backbones.gru4rec import GRU4Rec
from student_train.backbones.hstu import HSTU
from student_train.backbones.sasrec import SASRec
from student_train.config import StudentConfig


class Backbone(Protocol):
    """Builds a module that maps embedded histories to the state that scores the next item."""

    def __call__(self, config: StudentConfig) -> nn.Module:
        """Module with ``forward(embedded_BLD, present_BL) -> states [B, D]``.

        Histories are padded on the left; ``present_BL`` is True where an item stands.
        """
        ...


BACKBONES: dict[str, Backbone] = {"gru4rec": GRU4Rec, "caser": Caser, "sasrec": SASRec, "dros": SASRec, "hstu": HSTU}

__all__ = ["BACKBONES", "Backbone", "Tensor"]
