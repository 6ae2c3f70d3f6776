"""HSTU (Zhai et al., ICML 2024): hierarchical sequential transduction units, without the time buckets."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from student_train.config import ModelConfig


class HSTU(nn.Module):
    """Blocks of pointwise (SiLU, not softmax) attention with a relative position bias, gated by a fourth projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Unit(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, embedded_BLD: Tensor, present_BL: Tensor) -> Tensor:
        """State at the newest item."""
        length = embedded_BLD.shape[1]
        causal_LL = torch.ones(length, length, dtype=torch.bool, device=present_BL.device).tril()
        visible_B1LL = (causal_LL & present_BL[:, None, :])[:, None]
        states_BLD = self.dropout(embedded_BLD)
        for block in self.blocks:
            states_BLD = block(states_BLD, visible_B1LL)
        return self.norm(states_BLD[:, -1])


class Unit(nn.Module):
    """Y = f(norm(A V) ⊙ U) with A = SiLU(Q Kᵀ / √d + position bias) / L, and a residual connection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.norm = nn.LayerNorm(config.hidden_size)
        self.project = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.position = nn.Parameter(torch.zeros(config.max_length))
        self.attended_norm = nn.LayerNorm(config.hidden_size)
        self.mix = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states_BLD: Tensor, visible_B1LL: Tensor) -> Tensor:
        """States [B, L, D] of the next block."""
        length = states_BLD.shape[1]
        gate, query, key, value = functional.silu(self.project(self.norm(states_BLD))).chunk(4, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        place_L = torch.arange(length, device=states_BLD.device)
        back_LL = (place_L[:, None] - place_L).clamp(min=0)
        logits_BHLL = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + self.position[back_LL]
        weights_BHLL = functional.silu(logits_BHLL) / len(self.position)
        attended_BLD = ((weights_BHLL * visible_B1LL) @ value).transpose(1, 2).flatten(2)
        return states_BLD + self.dropout(self.mix(self.attended_norm(attended_BLD) * gate))
