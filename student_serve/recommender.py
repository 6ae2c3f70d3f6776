"""Histories of item ids or titles in, recommended items out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf, NoSuchFile

from student_serve.errors import StudentError
from student_serve.titles import clean_title

MODEL_FILE = "model.onnx"
ITEMS_FILE = "items.parquet"
STUDENT_ARTIFACT = "student"  # what MLflow calls the directory with these files
ANSWERS = pa.schema(
    [
        pa.field("item_ids", pa.list_(pa.string())),  # best first
        pa.field("titles", pa.list_(pa.string())),
        pa.field("scores", pa.list_(pa.float32())),  # logits; training frequencies for an empty history
        pa.field("skipped", pa.list_(pa.string())),  # words of the history that name no item
    ]
)
# Rows scored at a time: the scores of a few thousand items then stay in the processor's cache.
_BLOCK = 256

History = Sequence[str | None]


@dataclass(frozen=True)
class Read:
    """A history as item indices, oldest first, and the words that name no item."""

    items: list[int]
    skipped: list[str | None]


class Recommender:
    """A student that reads and answers in item ids and titles."""

    def __init__(self, directory: Path) -> None:
        """Load ``model.onnx`` and ``items.parquet``.

        Raises:
            StudentError: a file is missing or damaged, or the two do not fit each other.
        """
        for file in (MODEL_FILE, ITEMS_FILE):
            if not (directory / file).is_file():
                raise StudentError(f"{directory} is not a student: {file} is missing; train or pull it again")
        options = onnxruntime.SessionOptions()
        # One request is too small to share among threads; who has many starts one process per core.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            items = pq.read_table(directory / ITEMS_FILE)
            self._ids, self._titles, counts = (
                items[name].combine_chunks() for name in ("item_id", "title", "train_count")
            )
            self._session = onnxruntime.InferenceSession(
                directory / MODEL_FILE, options, providers=["CPUExecutionProvider"]
            )
        except (KeyError, pa.ArrowException, Fail, InvalidGraph, InvalidProtobuf, NoSuchFile) as error:
            reason = " ".join(str(error).split())[:200]
            raise StudentError(
                f"{directory}: the student's files are damaged ({reason}); train or pull it again"
            ) from error
        self.n_items = len(self._ids)
        self.length = self._session.get_inputs()[0].shape[1]
        if self._session.get_outputs()[0].shape[1] != self.n_items:
            raise StudentError(f"{directory}: {MODEL_FILE} and {ITEMS_FILE} differ in items; train or pull it again")
        self._counts = counts.to_numpy().astype(np.float32)
        self._popular = (-self._counts).argsort(kind="stable")
        self.titles: list[str] = self._titles.to_pylist()
        # A word that is one item's id and another's title means the id; of items that share a title, the first counts.
        words = [
            (word, at) for words in (self.titles, self._ids.to_pylist()) for at, word in reversed([*enumerate(words)])
        ]
        self._index = dict(words)

    def recommend(self, histories: Sequence[History], k: int = 10, exclude_history: bool = True) -> pa.Table:
        """The k best items for each of B histories.

        Args:
            histories: item ids or titles, mixed as you like, oldest first. Of more than the student's length the newest
                count; what names no item is skipped. One without any item is answered with the items most frequent in
                training, whose scores are then those frequencies.
            k: how many items.
            exclude_history: leave out what the history holds.

        Returns:
            A row per history, with the columns of ANSWERS.

        Raises:
            StudentError: k is out of range, or a history holds something else than text.
        """
        reads = [self.read(history) for history in histories]
        items_BK, scores_BK = self.top_k([read.items for read in reads], k, exclude_history)
        ends = pa.array(np.arange(len(reads) + 1, dtype=np.int32) * k)
        chosen = pa.array(items_BK.ravel())
        columns = [self._ids.take(chosen), self._titles.take(chosen), pa.array(scores_BK.ravel())]
        answers = [pa.ListArray.from_arrays(ends, column) for column in columns]
        return pa.table([*answers, pa.array([read.skipped for read in reads], ANSWERS.types[-1])], schema=ANSWERS)

    def read(self, history: History) -> Read:
        """Look up a history's words.

        Raises:
            StudentError: it is a text itself, or holds something else than text.
        """
        if isinstance(history, str):
            raise StudentError(f'history: "{history[:80]}" is one text, not a list of item ids or titles')
        items, skipped = [], []
        for word in history:
            at = self._index.get(word) if isinstance(word, str) else None
            if at is None and isinstance(word, str):
                at = self._index.get(clean_title(word))
            if at is not None:
                items.append(at)
            elif isinstance(word, str | None):
                skipped.append(word)
            else:
                raise StudentError(f"history: {word!r} is a {type(word).__name__}: item ids and titles are text")
        return Read(items, skipped)

    def top_k(
        self, histories: Sequence[Sequence[int]], k: int, exclude_history: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Item indices [B, k] and their scores [B, k], best first, after histories of item indices.

        Raises:
            StudentError: k is out of range.
        """
        longest = max((len(set(history)) for history in histories), default=0) if exclude_history else 0
        if not 1 <= k <= self.n_items - longest:
            raise StudentError(f"k = {k}, but {self.n_items - longest} items are left to recommend: change k")
        items_BK = np.empty((len(histories), k), dtype=np.int64)
        scores_BK = np.empty((len(histories), k), dtype=np.float32)
        for start in range(0, len(histories), _BLOCK):
            block = histories[start : start + _BLOCK]
            scores_BN = self.scores(block)
            if exclude_history:
                for row, history in enumerate(block):
                    scores_BN[row, history] = -np.inf
            best_BK = np.argpartition(scores_BN, self.n_items - k, axis=1)[:, self.n_items - k :]
            found_BK = np.take_along_axis(scores_BN, best_BK, axis=1)
            order_BK = (-found_BK).argsort(axis=1, kind="stable")
            items_BK[start : start + len(block)] = np.take_along_axis(best_BK, order_BK, axis=1)
            scores_BK[start : start + len(block)] = np.take_along_axis(found_BK, order_BK, axis=1)
        for row, history in enumerate(histories):
            if not history:
                items_BK[row] = self._popular[:k]
                scores_BK[row] = self._counts[items_BK[row]]
        return items_BK, scores_BK

    def scores(self, histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits [B, N] after histories of item indices, oldest first; of longer ones the newest items count."""
        history_BL = np.full((len(histories), self.length), self.n_items, dtype=np.int64)
        for row, history in enumerate(histories):
            newest = history[-self.length :]
            if newest:
                history_BL[row, -len(newest) :] = newest
        found: NDArray[np.float32] = self._session.run(None, {"history": history_BL})[0]
        return found
