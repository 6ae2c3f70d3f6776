"""Several rows in one sequence, so that all sequences are about equally long."""

from collections.abc import Sequence

import numpy as np

from teacher_train.examples import Example


def pack(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Groups of examples that fill sequences of at most ``max_tokens`` well (best-fit decreasing).

    No example may be longer than ``max_tokens``.
    """
    groups: list[list[list[Example]]] = [[] for _ in range(max_tokens + 1)]  # by the room left in them
    has_group = np.zeros(max_tokens + 1, dtype=bool)
    has_group[max_tokens] = True  # a new one can always be opened
    for example in sorted(examples, key=lambda example: -len(example["input_ids"])):
        length = len(example["input_ids"])
        room = length + int(has_group[length:].argmax())
        group = groups[room].pop() if groups[room] else []
        has_group[room] = bool(groups[room]) or room == max_tokens
        groups[room - length].append([*group, example])
        has_group[room - length] = True
    return [group for same_room in groups for group in same_room]
