"""The student directory: round trip, top k, damage."""

from pathlib import Path

import pytest
import torch

from cluster.errors import ModelError
from student_train.exported import ExportedStudent
from tests.conftest import MakeStudent


def test_a_reloaded_student_scores_the_same(make_student: MakeStudent) -> None:
    directory = make_student()
    first, second = ExportedStudent.load(directory), ExportedStudent.load(directory)
    assert torch.equal(first.scores([[1, 2, 3]]), second.scores([[1, 2, 3]]))


def test_only_the_newest_items_of_a_long_history_count(make_student: MakeStudent) -> None:
    student = ExportedStudent.load(make_student())
    assert torch.equal(student.scores([[9, 8, 1, 2, 3, 4, 5]]), student.scores([[1, 2, 3, 4, 5]]))


def test_top_k_leaves_the_history_out_and_is_sorted(make_student: MakeStudent) -> None:
    student = ExportedStudent.load(make_student())
    items, scores = student.top_k([[1, 2, 3], [4]], 17)
    assert not {1, 2, 3} & set(items[0].tolist())
    assert 4 not in items[1].tolist()
    assert (scores.diff(dim=1) <= 0).all()
    with_history, _ = student.top_k([[1, 2, 3]], 20, exclude_history=False)
    assert sorted(with_history[0].tolist()) == list(range(20))


def test_more_items_than_are_left_are_refused(make_student: MakeStudent) -> None:
    with pytest.raises(ModelError, match=r"k = 18, but only 17 items are left to recommend"):
        ExportedStudent.load(make_student()).top_k([[1, 2, 3]], 18)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "items.parquet"])
def test_a_missing_file_is_named(make_student: MakeStudent, file: str) -> None:
    directory = make_student()
    (directory / file).unlink()
    with pytest.raises(ModelError, match=f"{file} is missing"):
        ExportedStudent.load(directory)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "items.parquet"])
def test_a_damaged_file_is_refused(make_student: MakeStudent, file: str) -> None:
    directory: Path = make_student()
    content = (directory / file).read_bytes()
    (directory / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="damaged"):
        ExportedStudent.load(directory)
