"""The Cloze task (BERT4Rec, CIKM 2019): predict an item of the history from what stands before and after it."""

import torch

from student_train.rows import Rows


def cloze(batch: Rows, padding: int, generator: torch.Generator) -> Rows:
    """One row for each row of ``batch`` with two items or more in its history, in the same order.

    A random item of the history becomes the target; the others, with the former target as the newest, are the history.

    Args:
        batch: rows; their teacher lists are left behind, for they were made for other histories.
        padding: index that pads histories on the left, N.
        generator: chooses the items.
    """
    length = batch.history.shape[1]
    count_B = (batch.history != padding).sum(1)
    drawn_B = torch.rand(len(batch), generator=generator).to(batch.history.device)
    hidden_B = length - 1 - (drawn_B * count_B).long()
    sequence_BS = torch.cat([batch.history, batch.target[:, None]], dim=1)
    place_L = torch.arange(length, device=batch.history.device)
    context_BL = sequence_BS.gather(1, place_L + (place_L >= hidden_B[:, None]).long())
    target_B = sequence_BS.gather(1, hidden_B[:, None]).squeeze(1)
    return Rows(batch.row_id, context_BL, target_B).take(count_B >= 2)
