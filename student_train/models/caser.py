"""Caser (Tang and Wang, WSDM 2018): convolutions over the embedded history as over an image."""

import torch
from torch import Tensor, nn

from student_train.config import ModelConfig
from student_train.dropout import Dropout

HORIZONTAL, VERTICAL = 16, 4
"""Filters per height, and filters over the whole history."""


class Caser(nn.Module):
    """Horizontal filters of every height, max-pooled, beside weighted sums over the positions; sequence part only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.length = config.history
        self.horizontal = nn.ModuleList(
            nn.Conv1d(config.width, HORIZONTAL, height) for height in range(1, config.history + 1)
        )
        self.vertical = nn.Linear(config.history, VERTICAL, bias=False)
        self.mix = nn.Linear(HORIZONTAL * config.history + VERTICAL * config.width, config.width)
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, embedded_BLD: Tensor, present_BL: Tensor) -> Tensor:
        """State of the history."""
        missing = self.length - embedded_BLD.shape[1]
        image_BDL = nn.functional.pad((embedded_BLD * present_BL[:, :, None]).transpose(1, 2), (missing, 0))
        pooled = [convolve(image_BDL).relu().amax(2) for convolve in self.horizontal]
        features = torch.cat([*pooled, self.vertical(image_BDL).flatten(1)], dim=1)
        return self.norm(self.mix(self.dropout(features)))
