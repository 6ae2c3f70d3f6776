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


def evaluate(student: nn.Module, rows: Rows, device: torch.device, filter_history: bool = False) -> Tensor:
    """How many targets each rank has, [N + 1] int64 with nothing at 0; workers add these up.

    Args:
        student: maps histories [B, L] to scores [B, N].
        rows: the rows to rank.
        device: where the student is.
        filter_history: leave the items of the history out of the ranking, the target excepted.

    Raises:
        TrainingError: the student's scores are not finite.
    """
    rank_S, n_items = ranks_of_targets(student, rows, device, filter_history)
    return torch.bincount(rank_S, minlength=n_items + 1)


def ranks_of_targets(
    student: nn.Module, rows: Rows, device: torch.device, filter_history: bool = False
) -> tuple[Tensor, int]:
    """Rank of every row's target [S], on the CPU, and the number of items; see :func:`evaluate`."""
    ranks, n_items = [], 0
    for block, scores_BN in scored(student, rows, device, filter_history):
        ranks.append(target_ranks(scores_BN, block.target))
        n_items = scores_BN.shape[1]
    return torch.cat(ranks).cpu() if ranks else rows.target[:0].cpu(), n_items


@torch.inference_mode()
def scored(
    student: nn.Module, rows: Rows, device: torch.device, filter_history: bool = False
) -> Iterator[tuple[Rows, Tensor]]:
    """Blocks of rows on the device with their scores [B, N]; see :func:`evaluate`."""
    student.eval()
    finite = torch.ones((), dtype=torch.bool, device=device)
    for start in range(0, len(rows), BLOCK):
        block = rows.take(torch.arange(start, min(start + BLOCK, len(rows)))).to(device)
        scores_BN = student(block.history)
        finite &= scores_BN.isfinite().all()
        if filter_history:
            target_B1 = block.target[:, None]
            own_B1 = scores_BN.gather(1, target_B1)
            n_items = scores_BN.shape[1]
            # Padding points beyond the catalogue; the target's own score is put back last.
            seen_BL = torch.where(block.history < n_items, block.history, target_B1)
            scores_BN = scores_BN.scatter(1, seen_BL, -torch.inf).scatter(1, target_B1, own_B1)
        yield block, scores_BN
    _check(finite)  # once, for to look at it is to wait for the device


def _check(finite: Tensor) -> None:
    if not finite:
        raise TrainingError("the student's scores are not finite: lower --learning-rate or --distillation.lam")


def metric_means(counts_R: Tensor, metrics: Metrics = STANDARD) -> dict[str, float]:
    """Metrics by name from the number of targets of each rank, as :func:`evaluate` counts them."""
    rank_B = counts_R.nonzero().squeeze(1)
    share_B = counts_R[rank_B].double() / counts_R.sum()
    return dict(zip(metrics.names, (share_B @ metrics(rank_B)).tolist(), strict=True))
