"""GRU4Rec (Hidasi et al., ICLR 2016): the state of a GRU after the newest item."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from student_train.config import ModelConfig
from student_train.dropout import Dropout
from student_train.memberwise import each, present


class GRU4Rec(nn.Module):
    """GRU over the history."""

    def __init__(self, config: ModelConfig) -> None:
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
        started_BLD = self.dropout(embedded_BLD).gather(1, order_BL[:, :, None].expand_as(embedded_BLD))
        states_BLD = self._run(started_BLD)
        newest_B1D = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, states_BLD.shape[2])
        return self.norm(states_BLD.gather(1, newest_B1D).squeeze(1))

    def _run(self, started_BLD: Tensor) -> Tensor:
        if not present():
            return self.gru(started_BLD)[0]
        names, weights = zip(*self.gru.named_parameters(), strict=True)

        # vmap has no rule for a GRU.
        def own(_: int, values_BLD: Tensor, *own_weights: Tensor) -> Tensor:
            return functional_call(self.gru, dict(zip(names, own_weights, strict=True)), values_BLD)[0]

        return each(own, started_BLD, *weights)
