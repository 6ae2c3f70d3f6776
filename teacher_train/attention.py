"""Attention of rows that stand one after another in one sequence, without padding and without a mask."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from cluster.errors import ConfigError

VARLEN = "varlen"


def register_varlen() -> None:
    """Let models of transformers be opened with ``attn_implementation="varlen"``."""
    AttentionInterface.register(VARLEN, varlen_attention)


def varlen_attention(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **others: Any,  # noqa: ANN401  # what a model gives to its attention
) -> tuple[Tensor, None]:
    """Causal attention within each row of a flattened batch, as transformers calls it; [1, T, H, D].

    Half precision on a GPU takes torch's kernel for rows of any length (FlashAttention); else rows are computed one by
    one. Both take memory in proportion to T.

    Raises:
        ConfigError: the architecture wants more than that.
    """
    wanted = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if cu_seq_lens_q is None or wanted:
        raise ConfigError(
            f"--attention {VARLEN} is not enough for {type(module).__name__} ({', '.join(wanted) or 'its own form'}): "
            "take --attention eager"
        )
    if query_1HTD.is_cuda and query_1HTD.dtype in (torch.float16, torch.bfloat16) and not dropout:
        query, key, value = (each.squeeze(0).transpose(0, 1) for each in (query_1HTD, key_1HTD, value_1HTD))
        ends, longest = cu_seq_lens_q, max_length_q
        output: Any = varlen_attn(
            query, key, value, ends, ends, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=True
        )
        return output.unsqueeze(0), None
    lengths = cu_seq_lens_q.diff().tolist()
    parts = [each.split(lengths, dim=2) for each in (query_1HTD, key_1HTD, value_1HTD)]
    outputs = [
        scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=True)
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None
