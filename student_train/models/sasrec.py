"""SASRec (Kang & McAuley, ICDM 2018): causal self-attention over the history."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from student_train.config import ModelConfig


class SASRec(nn.Module):
    """Pre-norm self-attention blocks; positions count back from the newest item."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(config.max_length, config.hidden_size) * 0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, embedded_BLD: Tensor, present_BL: Tensor) -> Tensor:
        """State at the newest item."""
        length = embedded_BLD.shape[1]
        states_BLD = self.dropout(embedded_BLD + self.positions[-length:])
        causal_LL = torch.ones(length, length, dtype=torch.bool, device=present_BL.device).tril()
        # A padded query sees itself, so that no softmax runs over nothing.
        places_L = torch.arange(length, device=present_BL.device)
        itself_LL = places_L[:, None] == places_L
        visible_B1LL = ((causal_LL & present_BL[:, None, :]) | itself_LL)[:, None]
        for block in self.blocks[:-1]:
            states_BLD = block(states_BLD, states_BLD, visible_B1LL)
        # Only the newest position is scored, so the last block computes no other.
        newest_B1D = self.blocks[-1](states_BLD[:, -1:], states_BLD, visible_B1LL[:, :, -1:])
        return self.norm(newest_B1D.squeeze(1))


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each with residual connection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.mix = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(width, width),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, queries_BQD: Tensor, context_BLD: Tensor, visible_B1QL: Tensor) -> Tensor:
        """States [B, Q, D] of the query positions."""
        query = self._split(self.query(self.attention_norm(queries_BQD)))
        key, value = map(self._split, self.key_value(self.attention_norm(context_BLD)).chunk(2, dim=-1))
        attended = functional.scaled_dot_product_attention(
            query, key, value, visible_B1QL, dropout_p=self.dropout.p if self.training else 0.0
        )
        states_BQD = queries_BQD + self.dropout(self.mix(attended.transpose(1, 2).flatten(2)))
        return states_BQD + self.dropout(self.feed_forward(states_BQD))

    def _split(self, states_BLD: Tensor) -> Tensor:
        return states_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)
