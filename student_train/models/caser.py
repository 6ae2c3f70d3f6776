"""Caser (Tang and Wang, WSDM 2018): convolutions over the embedded history as over an image."""

import torch
from torch import Tensor, nn

from student_train.config import ModelConfig

HORIZONTAL, VERTICAL = 16, 4
"""Filters per height, and filters over the whole history."""


class Caser(nn.Module):
    """Horizontal filters of every height, max-pooled, beside weighted sums over the positions; sequence part only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.length = config.max_length
        self.horizontal = nn.ModuleList(
            nn.Conv1d(config.hidden_size, HORIZONTAL, height) for height in range(1, config.max_length + 1)
        )
        self.vertical = nn.Linear(config.max_length, VERTICAL, bias=False)
        self.mix = nn.Linear(HORIZONTAL * config.max_length + VERTICAL * config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, embedded_BLD: Tensor, present_BL: Tensor) -> Tensor:
        """State of the history."""
        missing = self.length - embedded_BLD.shape[1]
        image_BDL = nn.functional.pad((embedded_BLD * present_BL[:, :, None]).transpose(1, 2), (missing, 0))
        pooled = [convolve(image_BDL).relu().amax(2) for convolve in self.horizontal]
        features = torch.cat([*pooled, self.vertical(image_BDL).flatten(1)], dim=1)
        return self.norm(self.mix(self.dropout(features)))
