"""GRU4Rec (Hidasi et al., ICLR 2016): the state of a GRU after the newest item."""

import torch
from torch import Tensor, nn

from student_train.config import StudentConfig
from student_train.dropout import Dropout


class GRU4Rec(nn.Module):
    """GRU over the history."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0
        self.gru = nn.GRU(config.width, config.width, config.layers, batch_first=True, dropout=between)
        self.dropout = Dropout(config.dropout)
        # As in SASRec: the raw state is small at first, and with it the scores of a tied table.
        self.norm = nn.LayerNorm(config.width)

    def forward(self, embedded_BLD: Tensor, present_BL: Tensor) -> Tensor:
        """State after the newest item."""
        lengths = present_BL.sum(1)
        length = embedded_BLD.shape[1]
        # The GRU must start at the first real item, so the padding moves to the right.
        order_BL = (torch.arange(length, device=lengths.device) + (length - lengths)[:, None]) % length
        started_BLD = torch.take_along_dim(self.dropout(embedded_BLD), order_BL[:, :, None], dim=1)
        states_BLD, _ = self.gru(started_BLD)
        newest_B = (lengths - 1).clamp(min=0)
        return self.norm(torch.take_along_dim(states_BLD, newest_B[:, None, None], dim=1).squeeze(1))
