"""Several rows in one sequence, so that short rows leave no padding."""

from collections.abc import Iterable, Sequence

import numpy as np

from teacher_train.examples import Example


def pack(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Groups of examples that fill sequences of at most ``max_tokens`` well (best-fit decreasing).

    No example may be longer than ``max_tokens``.
    """
    groups: list[list[list[Example]]] = [[] for _ in range(max_tokens + 1)]  # by the room left in them
    has_group = np.zeros(max_tokens + 1, dtype=bool)
    has_group[max_tokens] = True  # a new one can always be opened
    for example in sorted(examples, key=lambda example: -len(example.tokens)):
        length = len(example.tokens)
        room = length + int(has_group[length:].argmax())
        group = groups[room].pop() if groups[room] else []
        has_group[room] = bool(groups[room]) or room == max_tokens
        groups[room - length].append([*group, example])
        has_group[room - length] = True
    return [group for same_room in groups for group in same_room]


def split_to(groups: Iterable[list[Example]], count: int) -> list[list[Example]]:
    """The same examples in ``count`` groups, no fewer than before and no more than there are examples."""
    groups = sorted(groups, key=len)
    while len(groups) < count:
        largest = groups.pop()
        half = len(largest) // 2
        groups = sorted([*groups, largest[:half], largest[half:]], key=len)
    return groups


def joined(group: Sequence[Example]) -> Example:
    """One sequence of several examples."""
    return Example(
        [token for example in group for token in example.tokens],
        [label for example in group for label in example.labels],
        tuple(length for example in group for length in example.lengths),
    )
