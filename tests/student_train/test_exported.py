"""The student directory: round trip, agreement of its two forms, damage."""

from pathlib import Path

import pytest
import torch

from cluster.errors import ModelError
from data_prep.schema import ITEMS_FILE
from student_serve.recommender import MODEL_FILE, Recommender
from student_train.components import BACKBONES
from student_train.config import DistillationConfig, ModelConfig
from student_train.distilled_student import DistilledStudent, fold
from student_train.exported import ExportedStudent, export_student
from student_train.models.student import Student
from tests.conftest import MakeStudent
from tests.student_train.conftest import N_ITEMS


def test_a_reloaded_student_scores_the_same(make_student: MakeStudent) -> None:
    directory = make_student()
    first, second = ExportedStudent.load(directory), ExportedStudent.load(directory)
    assert torch.equal(first.scores([[1, 2, 3]]), second.scores([[1, 2, 3]]))


def test_only_the_newest_items_of_a_long_history_count(make_student: MakeStudent) -> None:
    student = ExportedStudent.load(make_student())
    assert torch.equal(student.scores([[9, 8, 1, 2, 3, 4, 5]]), student.scores([[1, 2, 3, 4, 5]]))


@pytest.mark.parametrize("output", ["tied", "separate"])
@pytest.mark.parametrize("name", BACKBONES)
def test_onnx_exported_and_training_model_agree(dataset: Path, tmp_path: Path, name: str, output: str) -> None:
    torch.manual_seed(0)
    model = ModelConfig(name=name, hidden_size=16, num_heads=2, num_layers=2, max_length=6, output=output)
    distilled = DistilledStudent(model, N_ITEMS, torch.randn(N_ITEMS, 32), DistillationConfig()).eval()
    with torch.no_grad():
        distilled.student.bias.normal_()
        distilled.student.repeat.fill_(0.7)
    student = Student(model, N_ITEMS)
    student.load_state_dict(fold(distilled.state_dict(), distilled))
    export_student(tmp_path, student, model, dataset / ITEMS_FILE)
    exported, served = ExportedStudent.load(tmp_path), Recommender(tmp_path)
    histories = [[3], [], [1, 2, 3, 4, 5, 6], [9, 9, 1], [7, 8, 1, 2, 3, 4, 5, 6]]
    for block in (histories, histories[:1]):
        padded = torch.tensor([([N_ITEMS] * 6 + history)[-6:] for history in block])
        expected = distilled(padded).scores
        assert torch.allclose(exported.scores(block), expected, atol=1e-4)
        assert torch.allclose(torch.from_numpy(served.scores(block)), expected, atol=1e-4)


def test_the_item_table_is_stored_once(dataset: Path, tmp_path: Path) -> None:
    model = ModelConfig(name="gru4rec", hidden_size=512, num_heads=2, num_layers=1, max_length=5)
    student = Student(model, N_ITEMS)
    export_student(tmp_path, student, model, dataset / ITEMS_FILE)
    weights = sum(4 * parameter.numel() for parameter in student.parameters())
    assert weights < (tmp_path / MODEL_FILE).stat().st_size < 1.01 * weights + 50_000


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
