"""Everything that is asked of a finished student on test: accuracy with intervals, whom it serves, what it repeats.

All parts are counts over rows, so that workers add theirs up and the result does not depend on their number.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cluster.engine import sum_over_workers
from data_prep.metrics import CUTOFFS, METRICS, gains
from student_train.evaluation import STANDARD, Metrics, metric_means, scored, target_ranks
from student_train.rows import Rows

TOP = 20
REPLICATES, SEED = 1000, 0
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
    n_titles: int

    @classmethod
    def of(cls, titles: list[str], train_count_N: Tensor) -> "Catalogue":
        """From titles in item order."""
        numbers = {title: number for number, title in enumerate(dict.fromkeys(titles))}
        return cls(train_count_N, torch.tensor([numbers[title] for title in titles]), len(numbers))

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
        filter_history: leave the items of the history out.
        metrics: HR, NDCG and MRR, and what the user adds.
    """
    counts = _counts(_seen(student, rows, catalogue, device, filter_history), rows, catalogue)
    return _metrics({name: sum_over_workers(count) for name, count in counts.items()}, metrics)


class _Seen(NamedTuple):
    """What is kept of the scores of S rows, on the CPU."""

    rank_S: Tensor
    title_rank_S: Tensor
    recommended_N: Tensor
    """How often each item is among the first 20."""
    shared: Tensor
    """How many of the first 20 are on the teachers' lists."""


def _seen(student: nn.Module, rows: Rows, catalogue: Catalogue, device: torch.device, filter_history: bool) -> _Seen:
    n_items, title_N = len(catalogue.train_count_N), catalogue.title_N.to(device)
    ranks, title_ranks = [], []
    recommended_N = torch.zeros(n_items, dtype=torch.int64, device=device)
    shared = torch.zeros((), dtype=torch.int64, device=device)
    for block, scores_BN in scored(student, rows, device, filter_history):
        ranks.append(target_ranks(scores_BN, block.target))
        title_ranks.append(_title_ranks(scores_BN, block.target, title_N, catalogue.n_titles))
        top_BT = scores_BN.topk(min(TOP, n_items), dim=1).indices
        recommended_N.scatter_add_(0, top_BT.flatten(), torch.ones_like(top_BT).flatten())
        if block.teacher:
            shared += (top_BT[:, :, None] == block.teacher.items[:, None, :TOP]).sum()
    return _Seen(torch.cat(ranks).cpu(), torch.cat(title_ranks).cpu(), recommended_N.cpu(), shared.cpu())


def _counts(seen: _Seen, rows: Rows, catalogue: Catalogue) -> dict[str, Tensor]:
    """Whole numbers that workers add up: targets by group and rank, by title's rank, items by recommendations."""
    ranks = len(catalogue.train_count_N) + 1
    place_S = catalogue.groups()[rows.target] * ranks + seen.rank_S
    counts = {
        "groups": torch.bincount(place_S, minlength=len(GROUPS) * ranks).view(-1, ranks),
        "titles": torch.bincount(seen.title_rank_S, minlength=ranks),
        "recommended": seen.recommended_N,
    }
    return counts | {"shared": seen.shared} if rows.teacher else counts


def _title_ranks(scores_BN: Tensor, target_B: Tensor, title_N: Tensor, n_titles: int) -> Tensor:
    """Ranks [B] of the targets' titles among titles, each with the score of its best item."""
    best_BT = torch.full((len(scores_BN), n_titles), -torch.inf, device=scores_BN.device)
    best_BT = best_BT.scatter_reduce(1, title_N.expand_as(scores_BN), scores_BN, "amax")
    return target_ranks(best_BT, title_N[target_B])


def _metrics(counts: dict[str, Tensor], metrics: Metrics) -> dict[str, float]:
    count_R = counts["groups"].sum(0)
    found = metric_means(count_R, metrics) | intervals(count_R)
    for group, count_of_R in zip(GROUPS, counts["groups"], strict=True):
        if count_of_R.any():
            found |= {f"{group}_{name}": metric_means(count_of_R)[name] for name in WITH_INTERVAL}
    found |= {f"title_{name}": metric_means(counts["titles"])[name] for name in WITH_INTERVAL}
    recommended_N = counts["recommended"].sort().values
    found["coverage@20"] = float((recommended_N > 0).double().mean())
    found["gini@20"] = gini(recommended_N)
    if "shared" in counts:
        found["overlap@20"] = float(counts["shared"] / recommended_N.sum())
    return found


def intervals(count_R: Tensor) -> dict[str, float]:
    """Ends of the bootstrap's 95 % intervals from the number of targets of each rank.

    To draw rows with replacement is to draw their number of every rank, once and from a fixed seed.
    """
    last = CUTOFFS[-1]
    # Beyond the last cutoff all ranks are alike.
    count_K = torch.cat([count_R[1 : last + 1], count_R[last + 1 :].sum()[None]]).double().numpy()
    rows = count_K.sum()
    drawn_SK = np.random.default_rng(SEED).multinomial(int(rows), count_K / rows, size=REPLICATES)
    means_SM = torch.from_numpy(drawn_SK / rows) @ gains(torch.arange(1, len(count_K) + 1))
    ends = torch.quantile(means_SM, torch.tensor(INTERVAL, dtype=torch.float64), dim=0)
    return {
        f"{name}_{end}": value
        for end, values_M in zip(("low", "high"), ends.tolist(), strict=True)
        for name, value in zip(METRICS, values_M, strict=True)
        if name in WITH_INTERVAL
    }


def gini(counts_N: Tensor) -> float:
    """Gini coefficient of counts sorted upwards: 0 where all items are recommended alike, near 1 where one is."""
    n = len(counts_N)
    rank_N = torch.arange(1, n + 1, dtype=torch.float64)
    return float(((2 * rank_N - n - 1) * counts_N).sum() / (n * counts_N.sum()))
