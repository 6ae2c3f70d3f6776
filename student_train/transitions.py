"""What the data say without a teacher or a student: which items followed which, counted."""

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from data_prep.schema import ITEMS_FILE
from student_train.config import TrainConfig
from student_train.evaluation import evaluate, metric_means
from student_train.rows import Rows, read_rows

DECAY = 0.5


class Transitions(nn.Module):
    """A first-order Markov chain over items, summed over the history with ``DECAY`` per step back in time.

    The score of item j is the sum over history items i of DECAY^(steps back) · count(i → j) / (count(i) + 1), and the
    item's share of the targets, which breaks ties and answers for histories without any known item.
    """

    def __init__(self, rows: Rows, n_items: int) -> None:
        """Count the steps from the newest history item to the target in ``rows``."""
        super().__init__()
        ids, counts = torch.unique(rows.history[:, -1] * n_items + rows.target, return_counts=True)
        before, self.item = ids // n_items, ids % n_items
        left = torch.bincount(before, counts, minlength=n_items + 1)
        self.share = (counts / (left[before] + 1)).float()
        self.fan_out = torch.bincount(before, minlength=n_items + 1)
        self.fan_out[n_items] = 0  # what follows padding is no transition
        self.start = torch.cat([self.fan_out.new_zeros(1), self.fan_out[:-1].cumsum(0)])
        self.popularity = torch.bincount(rows.target, minlength=n_items) / len(rows)

    def forward(self, history_BL: Tensor) -> Tensor:
        """Scores [B, N] of histories padded on the left with N."""
        n_rows, length = history_BL.shape
        scores_BN = self.popularity.repeat(n_rows, 1)
        weight_BL = (DECAY ** torch.arange(length - 1, -1, -1.0)).expand(n_rows, length)
        fan_out = self.fan_out[history_BL].flatten()
        place = torch.arange(n_rows * length).repeat_interleave(fan_out)
        within = torch.arange(len(place)) - (fan_out.cumsum(0) - fan_out)[place]
        step = self.start[history_BL].flatten()[place] + within
        values = weight_BL.flatten()[place] * self.share[step]
        return scores_BN.index_put_((place // length, self.item[step]), values, accumulate=True)


def transition_metrics(config: TrainConfig) -> dict[str, float]:
    """Test metrics of transitions counted in the train rows of ``config.dataset``: what a student has to beat."""
    n_items = pq.read_metadata(config.dataset / ITEMS_FILE).num_rows
    train, test = (read_rows(config.dataset, split, config.model.max_length, n_items) for split in ("train", "test"))
    sums = evaluate(Transitions(train, n_items), test, torch.device("cpu"), config.filter_history)
    return metric_means(sums)
