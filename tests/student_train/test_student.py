"""Backbones, the student and the folding of teacher embeddings into its item table."""

import pytest
import torch

from cluster.errors import ConfigError
from student_train.backbones.gru4rec import GRU4Rec
from student_train.config import StudentConfig
from student_train.student import DistilledStudent, Student, fold, standardise

N = 11
HISTORY = torch.tensor([[N, N, 3, 4, 5], [1, 2, 3, 4, 5], [N, N, N, N, 7]])


def shape(**changes: object) -> StudentConfig:
    return StudentConfig(**({"width": 8, "heads": 2, "layers": 2, "history": 5} | changes))


def build(name: str, **changes: object) -> Student:
    torch.manual_seed(0)
    return Student(name, shape(**changes), N).eval()


@pytest.mark.parametrize("output", ["tied", "separate"])
@pytest.mark.parametrize("name", ["gru4rec", "sasrec", "dros"])
def test_scores_cover_the_catalogue_for_every_student(name: str, output: str) -> None:
    scores = build(name, output=output)(HISTORY)
    assert scores.shape == (3, N)
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", ["gru4rec", "sasrec"])
def test_padding_does_not_change_scores(name: str) -> None:
    student = build(name)
    assert torch.allclose(student(HISTORY[:1]), student(HISTORY[:1, 2:]), atol=1e-6)


@pytest.mark.parametrize("name", ["gru4rec", "sasrec"])
def test_the_order_of_the_history_matters(name: str) -> None:
    student = build(name)
    turned = HISTORY[1:2].flip(1)
    assert not torch.allclose(student(HISTORY[1:2]), student(turned), atol=1e-5)


def test_gru4rec_equals_torch_gru_on_each_unpadded_history() -> None:
    torch.manual_seed(0)
    backbone = GRU4Rec(shape(layers=1)).eval()
    embedded = torch.randn(3, 5, 8)
    found = backbone(embedded, HISTORY != N)
    for row, length in enumerate([3, 5, 1]):
        _, expected = backbone.gru(embedded[row : row + 1, 5 - length :])
        assert torch.allclose(found[row], backbone.norm(expected[-1, 0]), atol=1e-5)


def test_sasrec_rejects_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(ConfigError, match=r"shape.heads. = 3 does not divide"):
        build("sasrec", heads=3)


@pytest.mark.parametrize("output", ["tied", "separate"])
@pytest.mark.parametrize("name", ["gru4rec", "sasrec", "dros"])
def test_the_folded_student_scores_like_the_training_model_and_is_as_small_as_the_plain_one(
    name: str, output: str
) -> None:
    plain = build(name, output=output)
    model = DistilledStudent(build(name, output=output), torch.randn(N, 32) * 50 + 3, ed_weight=0.7).eval()
    folded = Student(name, shape(output=output), N).eval()
    folded.load_state_dict(fold(model.state_dict(), model))
    assert torch.allclose(folded(HISTORY), model(HISTORY), atol=1e-5)
    assert not torch.allclose(folded(HISTORY), plain(HISTORY), atol=1e-3)
    assert {k: v.shape for k, v in folded.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


def test_standardised_embeddings_do_not_depend_on_the_teachers_scale_or_offset() -> None:
    embeddings = torch.randn(N, 6)
    assert torch.allclose(standardise(embeddings), standardise(embeddings * 40 - 5), atol=1e-5)
    assert standardise(embeddings).norm(dim=1).mean().item() == pytest.approx(1.0)


def test_teacher_embeddings_are_not_trained() -> None:
    model = DistilledStudent(build("sasrec"), torch.randn(N, 6), ed_weight=1.0)
    assert "teacher_NE" not in model.state_dict()
    assert not model.teacher_NE.requires_grad
