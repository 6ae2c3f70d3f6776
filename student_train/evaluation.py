"""Full-ranking evaluation: every item of the catalogue competes, history items included; ties count against us."""

import torch
from torch import Tensor, nn

from student_train.rows import Rows

CUTOFFS = (1, 5, 10, 20)
METRICS = tuple(f"{name}@{k}" for name in ("hr", "ndcg") for k in CUTOFFS)
PROTOCOL = "full ranking over the catalogue, history items not filtered, ties counted pessimistically"
BLOCK = 1024


def target_ranks(scores_BN: Tensor, target_B: Tensor) -> Tensor:
    """Rank [B] of each target from 1; an item with the same score stands before it."""
    target_score_B1 = scores_BN.gather(1, target_B[:, None])
    return (scores_BN >= target_score_B1).sum(1)


def metric_sums(rank_B: Tensor) -> Tensor:
    """Sums over rows of HR@K and NDCG@K in the order of METRICS, float64."""
    gain_B = 1 / torch.log2(rank_B.double() + 1)
    hits = [(rank_B <= k).double() for k in CUTOFFS]
    return torch.stack([hit.sum() for hit in hits] + [(hit * gain_B).sum() for hit in hits])


@torch.inference_mode()
def evaluate(student: nn.Module, rows: Rows, device: torch.device) -> Tensor:
    """Metric sums and, last, the number of rows: [len(METRICS) + 1]; workers add these up before dividing.

    Args:
        student: maps histories [B, L] to scores [B, N].
        rows: the rows to rank.
        device: where the student is.

    Raises:
        FloatingPointError: the student's scores are not finite.
    """
    student.eval()
    total = torch.zeros(len(METRICS) + 1, dtype=torch.float64)
    for start in range(0, len(rows), BLOCK):
        block = rows.take(torch.arange(start, min(start + BLOCK, len(rows)))).to(device)
        scores_BN = student(block.history)
        if not scores_BN.isfinite().all():
            raise FloatingPointError("scores are not finite")
        total[:-1] += metric_sums(target_ranks(scores_BN, block.target)).cpu()
        total[-1] += len(block)
    return total


def metric_means(sums: Tensor) -> dict[str, float]:
    """Metrics by name from the sums of :func:`evaluate`."""
    return dict(zip(METRICS, (sums[:-1] / sums[-1]).tolist(), strict=True))
