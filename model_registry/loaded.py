"""A trained student for Python programs: histories in, recommendations or scores out."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cluster.config import TrackingConfig
from cluster.errors import ModelError
from cluster.files import local_copy
from cluster.paths import storage_path
from cluster.storage import read_manifest
from cluster.tracking import Tracker
from model_registry.versions import Registry
from student_serve.errors import StudentError
from student_serve.recommender import Recommender

HISTORY = "history"
Histories = Sequence[Sequence[str]] | pd.Series | pd.DataFrame
"""Histories of item ids or titles, oldest first: lists, a series of lists, or a frame with a column ``history``."""


class LoadedStudent:
    """A student that answers in item ids and titles; it runs on ONNX Runtime, without torch and without the teacher."""

    def __init__(self, directory: Path) -> None:
        """Load a student directory.

        Raises:
            ModelError: a file is missing or damaged.
        """
        try:
            self._recommender = Recommender(local_copy(directory))
        except StudentError as error:
            raise ModelError(str(error)) from error

    @property
    def titles(self) -> list[str]:
        """The title of every item [N], in the order of :meth:`score`'s columns."""
        return self._recommender.titles

    def recommend(self, histories: Histories, k: int = 10, exclude_history: bool = True) -> pd.DataFrame:
        """The k best items after each of B histories.

        Args:
            histories: see :data:`Histories`. What names no item is skipped; a history without any known item gets the
                items most frequent in training.
            k: how many items.
            exclude_history: leave out what the history holds.

        Returns:
            A row per history, under the index of a frame or series: the lists ``item_ids``, ``titles`` and ``scores``,
            best first, and ``skipped``, the words that name no item.

        Raises:
            ModelError: k is out of range, or a history holds something else than text.
        """
        rows, index = _rows(histories)
        try:
            answer = self._recommender.recommend(rows, k, exclude_history)
        except StudentError as error:
            raise ModelError(str(error)) from error
        return pd.DataFrame(answer.to_pydict(), index=index)

    def score(self, histories: Histories) -> NDArray[np.float32]:
        """Logits [B, N] of every item as the next one after each of B histories.

        Raises:
            ModelError: a history holds something else than text.
        """
        rows, _ = _rows(histories)
        try:
            return self._recommender.scores([self._recommender.read(row).items for row in rows])
        except StudentError as error:
            raise ModelError(str(error)) from error


def load_student(model: str | Path, tracking: TrackingConfig | None = None) -> LoadedStudent:
    """Load a student from its directory, or from the registry.

    Args:
        model: a student directory, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        tracking: where the registry is; by default as for the command.

    Raises:
        StaleInputError: the directory holds no finished student.
        ModelError: the model is unknown or incomplete.
        ConfigError: the tracking server does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="dllm2rec-student-") as folder:
        return LoadedStudent(fetch_student(str(model), tracking or TrackingConfig(), Path(folder)))


def fetch_student(model: str, tracking: TrackingConfig, folder: Path) -> Path:
    """The directory of a student: the one that ``model`` names, or one of the registry, downloaded into ``folder``.

    Raises:
        StaleInputError, ModelError, ConfigError: see :func:`load_student`.
    """
    if not model.startswith("models:"):
        read_manifest(storage_path(model), "train")
        return storage_path(model)
    registry = Registry(Tracker(tracking))
    return registry.fetch(registry.resolve(model), folder)


def _rows(histories: Histories) -> tuple[list[Sequence[str]], pd.Index]:
    if isinstance(histories, pd.DataFrame):
        if HISTORY not in histories.columns:
            raise ModelError(f"the frame has no column `{HISTORY}`: it has {', '.join(map(str, histories.columns))}")
        histories = histories[HISTORY]
    if isinstance(histories, pd.Series):
        return [list(row) for row in histories], histories.index
    return list(histories), pd.RangeIndex(len(histories))
