"""Full-ranking evaluation: every item of the catalogue competes, ties count against us; in blocks on the device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cluster.dotted_path import find
from cluster.errors import TrainingError
from data_prep.metrics import METRICS, gains
from student_train.rows import Rows

BLOCK = 1024


def protocol(filter_history: bool, prepared: Mapping[str, Any]) -> str:
    """How figures were taken, in words that stand beside them; ``prepared`` is the config that made the data set."""
    rows = {"every": "every position", "bigrec": "BIGRec's rows"}.get(prepared.get("rows", ""), "rows")
    split = f"{rows}, {prepared['split']} split" if "split" in prepared else "split as given"
    history = "history items left out" if filter_history else "history items not filtered"
    return f"full ranking over the catalogue, {split}, {history}, ties counted pessimistically"


def target_ranks(scores_BN: Tensor, target_B: Tensor) -> Tensor:
    """Rank [B] of each target from 1; an item with the same score stands before it."""
    return (scores_BN >= scores_BN.gather(1, target_B[:, None])).sum(1)


class Metrics:
    """HR, NDCG and MRR (:data:`data_prep.metrics.METRICS`), and metrics of the user's own."""

    def __init__(self, own: Sequence[str] = ()) -> None:
        """``own``: dotted paths of functions from ranks [B], from 1, to values [B]; their last parts are the names.

        Raises:
            ConfigError: one leads to nothing.
        """
        self._own: list[Callable[[Tensor], Tensor]] = [find({}, path) for path in own]
        self.names = (*METRICS, *(path.rpartition(":")[2] for path in own))

    def __call__(self, rank_B: Tensor) -> Tensor:
        """The value of every metric for every row [B, M], float64."""
        return torch.cat([gains(rank_B), *(own(rank_B).double()[:, None] for own in self._own)], dim=1)


STANDARD = Metrics()


def evaluate(
    student: nn.Module,
    rows: Rows,
    device: torch.device,
    filter_history: bool = False,
    metrics: Metrics = STANDARD,
) -> Tensor:
    """Sums of M metrics and, last, the number of rows [M + 1]; workers add these up before dividing.

    Args:
        student: maps histories [B, L] to scores [B, N].
        rows: the rows to rank.
        device: where the student is.
        filter_history: leave the items of the history out of the ranking, the target excepted.
        metrics: which to sum.

    Raises:
        TrainingError: the student's scores are not finite.
    """
    total = torch.zeros(len(metrics.names) + 1, dtype=torch.float64)
    for block, scores_BN in scored(student, rows, device, filter_history):
        total[:-1] += metrics(target_ranks(scores_BN, block.target)).sum(0).cpu()
        total[-1] += len(block)
    return total


@torch.inference_mode()
def scored(
    student: nn.Module, rows: Rows, device: torch.device, filter_history: bool = False
) -> Iterator[tuple[Rows, Tensor]]:
    """Blocks of rows on the device with their scores [B, N]; see :func:`evaluate`."""
    student.eval()
    for start in range(0, len(rows), BLOCK):
        block = rows.take(torch.arange(start, min(start + BLOCK, len(rows)))).to(device)
        scores_BN = student(block.history)
        if not scores_BN.isfinite().all():
            raise TrainingError("the student's scores are not finite: lower --learning-rate or --distillation.lam")
        if filter_history:
            target_B1 = block.target[:, None]
            own_B1 = scores_BN.gather(1, target_B1)
            n_items = scores_BN.shape[1]
            # Padding points beyond the catalogue; the target's own score is put back last.
            seen_BL = torch.where(block.history < n_items, block.history, target_B1)
            scores_BN = scores_BN.scatter(1, seen_BL, -torch.inf).scatter(1, target_B1, own_B1)
        yield block, scores_BN


def metric_means(sums: Tensor, metrics: Metrics = STANDARD) -> dict[str, float]:
    """Metrics by name from the sums of :func:`evaluate`."""
    return dict(zip(metrics.names, (sums[:-1] / sums[-1]).tolist(), strict=True))
