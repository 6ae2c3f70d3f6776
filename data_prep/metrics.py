"""HR, NDCG and MRR of one true item per row under full ranking (paper, section 4.1)."""

import torch
from torch import Tensor

CUTOFFS = (1, 5, 10, 20)
METRICS = tuple(f"{name}@{k}" for name in ("hr", "ndcg", "mrr") for k in CUTOFFS)


def gains(rank_B: Tensor) -> Tensor:
    """Every metric of every row [B, len(METRICS)], float64; their means over rows are the metrics.

    Args:
        rank_B: rank of the true item from 1; any rank beyond the last cutoff stands for "not found".
    """
    rank_B1 = rank_B.double()[:, None]
    hits_BC = (rank_B1 <= torch.tensor(CUTOFFS, dtype=torch.double, device=rank_B.device)).double()
    return torch.cat([hits_BC, hits_BC / (rank_B1 + 1).log2(), hits_BC / rank_B1], dim=1)
