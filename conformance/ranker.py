"""What a teacher's way to rank must hold."""

import numpy as np
import torch

from conformance.promise import promise
from data_prep.score_kind import sign
from teacher_infer.rankers.base import Ranked, Ranker, Rows

ROWS, LONGEST = 12, 5


def check_ranker(ranker: Ranker, n_items: int, top_k: int, exclude_history: bool = False) -> None:
    """Put a ranker, with its engines and catalogue, through the promises that labels rely on.

    Args:
        ranker: as it is built for a job.
        n_items: N, items of its catalogue.
        top_k: K, the length of its lists.
        exclude_history: whether it leaves the history out.

    Raises:
        ConformanceError: names the promise that is broken.
    """
    name = type(ranker).__name__
    generator = np.random.default_rng(0)
    history = [generator.integers(n_items, size=generator.integers(1, LONGEST)).tolist() for _ in range(ROWS)]
    rows = Rows(list(range(ROWS)), history, torch.from_numpy(generator.integers(n_items, size=ROWS)))
    ranked = ranker.rank(rows)
    _lists(ranker, ranked, rows, n_items, top_k, name)
    if exclude_history:
        seen = any(set(items) & set(own) for items, own in zip(ranked.items.tolist(), history, strict=True))
        promise(not seen, name, "leaves the items of the history out")
    again = ranker.rank(rows)
    promise(torch.equal(ranked.items, again.items), name, "ranks the same rows the same way again")
    part = ranker.rank(rows.take([3, 1]))
    promise(torch.equal(part.items, ranked.items[[3, 1]]), name, "ranks a row the same way whatever rows are beside it")


def _lists(ranker: Ranker, ranked: Ranked, rows: Rows, n_items: int, top_k: int, name: str) -> None:
    shape = (ROWS, top_k)
    promise(ranked.items.shape == shape, name, f"gives K items per row {shape}, not {tuple(ranked.items.shape)}")
    promise(ranked.scores.shape == shape, name, f"gives K scores per row {shape}, not {tuple(ranked.scores.shape)}")
    promise(ranked.target_scores.shape == (ROWS,), name, "gives a score of the true item for every row [B]")
    promise(len(ranked.texts) == ROWS, name, "gives a text, or none, for every row")
    inside = bool(((ranked.items >= 0) & (ranked.items < n_items)).all())
    promise(inside, name, "lists items of the catalogue")
    promise(all(len(set(items)) == top_k for items in ranked.items.tolist()), name, "lists no item twice")
    better_BK = sign(ranker.kind) * ranked.scores
    promise(bool(ranked.scores.isfinite().all()), name, "gives finite scores")
    promise(bool((better_BK[:, 1:] <= better_BK[:, :-1]).all()), name, "lists the best item first")
    listed_BK = ranked.items == rows.target[:, None]
    row_B = listed_BK.any(1)
    same = torch.allclose(ranked.scores[listed_BK], ranked.target_scores[row_B], atol=1e-4)
    promise(same, name, "scores the true item as it does in the list, where it is listed")
