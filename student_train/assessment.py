"""Everything that is asked of a finished student on test: accuracy with intervals, whom it serves, what it repeats.

All parts are sums over rows, so that workers add theirs up and the result does not depend on their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cluster.engine import mean_over_workers
from data_prep.metrics import METRICS, gains
from student_train.evaluation import STANDARD, Metrics, scored, target_ranks
from student_train.rows import Rows

TOP = 20
REPLICATES = 1000
INTERVAL = (0.025, 0.975)
HEAD_SHARE = 0.2
GROUPS = ("head", "tail", "unseen")
WITH_INTERVAL = ("hr@20", "ndcg@20")


@dataclass(frozen=True)
class Catalogue:
    """What the assessment needs to know of the items."""

    train_count_N: Tensor
    title_N: Tensor
    """Items that share a title share a number."""

    @classmethod
    def of(cls, titles: list[str], train_count_N: Tensor) -> "Catalogue":
        """From titles in item order."""
        numbers = {title: number for number, title in enumerate(dict.fromkeys(titles))}
        return cls(train_count_N, torch.tensor([numbers[title] for title in titles]))

    def groups(self) -> Tensor:
        """Group [N] of each item: 0 head (the most popular 20 % of those seen in training), 1 tail, 2 unseen."""
        seen = int((self.train_count_N > 0).sum())
        rank_N = torch.empty_like(self.train_count_N)
        order = self.train_count_N.argsort(descending=True, stable=True)
        rank_N[order] = torch.arange(len(order))
        group_N = (rank_N >= round(HEAD_SHARE * seen)).long()
        return group_N.masked_fill(self.train_count_N == 0, 2)


def assess(
    student: nn.Module,
    rows: Rows,
    catalogue: Catalogue,
    device: torch.device,
    seed: int,
    filter_history: bool = False,
    metrics: Metrics = STANDARD,
) -> dict[str, float]:
    """Metrics of ``student`` on ``rows`` of all workers; a collective call.

    HR, NDCG and MRR at 1, 5, 10 and 20; 95 % bootstrap intervals of HR@20 and NDCG@20 (``…_low``, ``…_high``); by item
    group; HR@20 and NDCG@20 by title, where items that share the target's title are as good as the target, as in
    BIGRec; coverage@20 (share of the catalogue recommended at least once) and gini@20 of what is recommended;
    overlap@20 with the teacher's list, where the rows have one.

    Args:
        student: maps histories [B, L] to scores [B, N].
        rows: this worker's rows.
        catalogue: see :class:`Catalogue`.
        device: where the student is.
        seed: of the bootstrap; equal seeds draw equal rows for every student, so that intervals compare.
        filter_history: leave the items of the history out.
        metrics: HR, NDCG and MRR, and what the user adds.
    """
    n_items = len(catalogue.train_count_N)
    group_N, title_N = catalogue.groups().to(device), catalogue.title_N.to(device)
    generator = torch.Generator().manual_seed(seed)
    sums = _Sums()
    for block, scores_BN in scored(student, rows, device, filter_history):
        rank_B = target_ranks(scores_BN, block.target)
        gains_BM = gains(rank_B).cpu()
        sums.add("count", torch.tensor(float(len(block))))
        sums.add("metrics", metrics(rank_B).cpu().sum(0))
        weight_RB = torch.poisson(torch.ones(REPLICATES, len(block), dtype=torch.float64), generator=generator)
        sums.add("replicates", torch.cat([weight_RB @ gains_BM, weight_RB.sum(1, keepdim=True)], dim=1))
        member_BG = nn.functional.one_hot(group_N[block.target], len(GROUPS)).double().cpu()
        sums.add("groups", torch.cat([member_BG.T @ gains_BM, member_BG.sum(0)[:, None]], dim=1))
        sums.add("titles", gains(_title_ranks(scores_BN, block.target, title_N)).cpu().sum(0))
        top_BT = scores_BN.topk(min(TOP, n_items), dim=1).indices
        sums.add("recommended", torch.bincount(top_BT.flatten(), minlength=n_items).double().cpu())
        if block.teacher:
            teacher_BK = block.teacher.items[:, :TOP]
            shared_B = (top_BT[:, :, None] == teacher_BK[:, None, :]).any(2).double().mean(1)
            sums.add("overlap", shared_B.sum().cpu())
    return _metrics({name: mean_over_workers(value) for name, value in sums.values.items()}, metrics.names)


class _Sums:
    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        self.values[name] = self.values[name] + value.double() if name in self.values else value.double()


def _title_ranks(scores_BN: Tensor, target_B: Tensor, title_N: Tensor) -> Tensor:
    """Ranks [B] of the targets' titles among titles, each with the score of its best item."""
    index_BN = title_N.expand_as(scores_BN)
    best_BT = torch.full((len(scores_BN), int(title_N.max()) + 1), -torch.inf, device=scores_BN.device)
    best_BT = best_BT.scatter_reduce(1, index_BN, scores_BN, "amax")
    return target_ranks(best_BT, title_N[target_B])


def _metrics(sums: dict[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    def named(values_M: Tensor) -> dict[str, float]:
        return dict(zip(METRICS, values_M.tolist(), strict=True))

    metrics = dict(zip(names, (sums["metrics"] / sums["count"]).tolist(), strict=True))
    replicates = sums["replicates"]
    ends = torch.quantile(replicates[:, :-1] / replicates[:, -1:], torch.tensor(INTERVAL, dtype=torch.float64), dim=0)
    for end, values_M in zip(("low", "high"), ends, strict=True):
        metrics |= {f"{name}_{end}": named(values_M)[name] for name in WITH_INTERVAL}
    for group, values in zip(GROUPS, sums["groups"], strict=True):
        if values[-1]:
            metrics |= {f"{group}_{name}": named(values[:-1] / values[-1])[name] for name in WITH_INTERVAL}
    titles = named(sums["titles"] / sums["count"])
    metrics |= {f"title_{name}": titles[name] for name in WITH_INTERVAL}
    recommended = sums["recommended"].sort().values
    metrics["coverage@20"] = float((recommended > 0).double().mean())
    metrics["gini@20"] = gini(recommended)
    if "overlap" in sums:
        metrics["overlap@20"] = float(sums["overlap"] / sums["count"])
    return metrics


def gini(counts_N: Tensor) -> float:
    """Gini coefficient of counts sorted upwards: 0 where all items are recommended alike, near 1 where one is."""
    n = len(counts_N)
    rank_N = torch.arange(1, n + 1, dtype=torch.float64)
    return float(((2 * rank_N - n - 1) * counts_N).sum() / (n * counts_N.sum()))
