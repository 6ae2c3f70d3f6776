"""The join of the teacher's labels to rows, and what its scores become."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from cluster.errors import StaleInputError
from data_prep.score_kind import ScoreScale
from student_train.labels import distances, read_labels, standard_logits
from student_train.rows import read_rows
from tests.student_train.conftest import N_ITEMS, ROWS, STORED_K


def test_labels_are_joined_by_row_id_not_by_line(dataset: Path, labels: Path) -> None:
    rows = read_rows(dataset, "train", 5, N_ITEMS, 1, 3)
    found = read_labels(rows.row_id, labels, "train", 4)
    assert found.items.tolist() == [[(t + k) % N_ITEMS for k in range(4)] for t in rows.target.tolist()]
    every = torch.arange(ROWS["train"]) / 100
    levels = torch.exp(-(every - every.mean()) / every.std(correction=0))
    assert torch.allclose(found.confidence, levels[rows.row_id] / levels.mean())
    assert torch.allclose(found.distance, (torch.arange(4) / 10).expand(len(rows), 4))
    assert torch.allclose(found.logits, -found.distance / every.std(correction=0))


def test_a_cosine_is_the_distance_of_unit_vectors() -> None:
    first, second = functional.normalize(torch.randn(2, 5, 8), dim=2)
    cosine = (first * second).sum(1)
    assert torch.allclose(distances(cosine, "cosine"), (first - second).norm(dim=1), atol=1e-5)
    assert standard_logits(cosine, "cosine", ScoreScale(0.0, 1.0, 1.0)).argmax() == cosine.argmax()


def test_a_row_without_label_is_named(dataset: Path, labels: Path) -> None:
    rows = read_rows(dataset, "train", 5, N_ITEMS)
    rows.row_id[17] = 100_000
    with pytest.raises(StaleInputError, match=r"1 train rows have no label \(first: row 100000\)"):
        read_labels(rows.row_id, labels, "train", 4)


def test_lists_shorter_than_asked_for_are_refused(dataset: Path, labels: Path) -> None:
    rows = read_rows(dataset, "train", 5, N_ITEMS)
    with pytest.raises(StaleInputError, match=f"hold {STORED_K} items, .distillation.top_k. asks for 21"):
        read_labels(rows.row_id, labels, "train", 21)
