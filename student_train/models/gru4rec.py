"""GRU4Rec (Hidasi et al., ICLR 2016): the state of a GRU after the newest item."""

import torch
from torch import Tensor, nn

from student_train.config import ModelConfig


class GRU4Rec(nn.Module):
    """GRU over the history."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        between = config.dropout if config.num_layers > 1 else 0.0
        self.gru = nn.GRU(config.hidden_size, config.hidden_size, config.num_layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        # As in SASRec: the raw state is small at first, and with it the scores of a tied table.
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, embedded_BLD: Tensor, present_BL: Tensor) -> Tensor:
        """State after the newest item."""
        lengths = present_BL.sum(1)
        length = embedded_BLD.shape[1]
        # The GRU must start at the first real item, so the padding moves to the right.
        order_BL = (torch.arange(length, device=lengths.device) + (length - lengths)[:, None]) % length
        started_BLD = self.dropout(embedded_BLD).gather(1, order_BL[:, :, None].expand_as(embedded_BLD))
        states_BLD, _ = self.gru(started_BLD)
        newest_B1D = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, states_BLD.shape[2])
        return self.norm(states_BLD.gather(1, newest_B1D).squeeze(1))
