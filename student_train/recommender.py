"""Histories of titles or item ids in, recommended titles out; all that a served student needs."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from cluster.errors import ModelError
from student_train.exported import ExportedStudent

ANSWER_COLUMNS = ("item_ids", "titles", "scores")
_LONGEST_SHOWN = 80


class Recommender:
    """A student that reads and answers in item ids and titles instead of item indices."""

    def __init__(self, directory: Path) -> None:
        """Load a student directory.

        Raises:
            ModelError: the directory lacks a file or holds a damaged one.
        """
        self._student = ExportedStudent.load(directory)
        self._ids, self._titles = self._student.item_ids, self._student.titles
        # A word that is one item's id and another's title means the id; of items that share a title, the first counts.
        self._index = {word: at for words in (self._titles, self._ids) for at, word in reversed([*enumerate(words)])}

    def recommend(self, histories: Sequence[Iterable[str]], k: int = 10, exclude_history: bool = True) -> pd.DataFrame:
        """The k best items for each history, one row per history.

        Args:
            histories: item ids or titles, mixed as you like, oldest first; an empty one is answered with the items
                most frequent in training, whose scores are then those frequencies.
            k: how many items.
            exclude_history: leave out what the history holds.

        Returns:
            List columns ``item_ids``, ``titles`` and ``scores``, best first.

        Raises:
            ModelError: an item of a history is unknown (the nearest title is named), or k is too large.
        """
        rows = [[self.index(word) for word in history] for history in histories]
        found = [self._answer(row, k, exclude_history) for row in rows]
        answers = [([self._ids[i] for i in items], [self._titles[i] for i in items], scores) for items, scores in found]
        return pd.DataFrame(answers, columns=list(ANSWER_COLUMNS))

    def index(self, word: str) -> int:
        """The item index of an id or title.

        Raises:
            ModelError: it is neither; the nearest title is named.
        """
        if word in self._index:
            return self._index[word]
        lowered = {title.lower(): title for title in reversed(self._titles)}
        shown = word if len(word) <= _LONGEST_SHOWN else f"{word[:_LONGEST_SHOWN]}…"
        close = difflib.get_close_matches(shown.lower(), lowered, n=1, cutoff=0.0)
        hint = f'the nearest title is "{lowered[close[0]]}"' if close else "no title is near it"
        raise ModelError(f'history: "{shown}" is neither an item id nor a title; {hint}')

    def _answer(self, history: list[int], k: int, exclude_history: bool) -> tuple[list[int], list[float]]:
        if not history:
            counts = self._student.train_counts
            if k > len(counts):
                raise ModelError(f"k = {k}, but the catalogue has {len(counts)} items: lower --k")
            most = sorted(range(len(counts)), key=lambda at: -counts[at])[:k]
            return most, [float(counts[at]) for at in most]
        items, scores = self._student.top_k([history], k, exclude_history)
        return items[0].tolist(), scores[0].tolist()
