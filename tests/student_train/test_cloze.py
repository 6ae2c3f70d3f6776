"""The Cloze task: which item is hidden, and what is left as its context."""

import torch

from student_train.cloze import cloze
from student_train.rows import Rows, TeacherLabels

N = 9


def rows(history: list[list[int]], target: list[int]) -> Rows:
    count = len(target)
    taught = TeacherLabels(*(torch.zeros(count, 1) for _ in range(3)), torch.ones(count))
    return Rows(torch.arange(count), torch.tensor(history), torch.tensor(target), taught)


def test_every_history_item_is_hidden_in_turn_and_the_others_keep_their_order() -> None:
    made = cloze(rows([[N, 1, 2, 3]] * 200, [4] * 200), N, torch.Generator().manual_seed(0))
    seen = {(int(target), tuple(history)) for target, history in zip(made.target, made.history.tolist(), strict=True)}
    assert seen == {(1, (N, 2, 3, 4)), (2, (N, 1, 3, 4)), (3, (N, 1, 2, 4))}
    shares = made.target.bincount(minlength=N)[1:4] / 200
    assert ((shares - 1 / 3).abs() < 0.12).all()


def test_a_full_history_keeps_its_length() -> None:
    made = cloze(rows([[1, 2, 3]] * 50, [4] * 50), N, torch.Generator().manual_seed(0))
    assert {tuple(history) for history in made.history.tolist()} == {(2, 3, 4), (1, 3, 4), (1, 2, 4)}


def test_a_history_of_one_item_is_left_out_and_no_row_keeps_a_teacher() -> None:
    made = cloze(rows([[N, N, 1], [N, 1, 2], [N, N, N]], [3, 3, 3]), N, torch.Generator())
    assert made.row_id.tolist() == [1]
    assert made.teacher is None
