"""Sequence backbones: embedded histories [B, L, D] to states [B, D]. A file each."""

from typing import Protocol

from torch import nn

from cluster.dotted_path import find
from student_train.components import BACKBONES
from student_train.config import ModelConfig


class Backbone(Protocol):
    """Builds a module that maps embedded histories to the state that scores the next item."""

    def __call__(self, config: ModelConfig) -> nn.Module:
        """Module with ``forward(embedded_BLD, present_BL) -> states [B, D]``.

        Histories are padded on the left; ``present_BL`` is True where an item stands.
        """
        ...


def backbone(name: str) -> Backbone:
    """The backbone of a student."""
    found: Backbone = find(BACKBONES, name)
    return found
