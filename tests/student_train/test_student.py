"""Backbones, the student and the folding of teacher embeddings into its item table."""

import pytest
import torch
from pydantic import ValidationError

from cluster.errors import ConfigError
from student_train.config import DistillationConfig, ModelConfig
from student_train.distillation.embedding import projector, standardise
from student_train.distilled_student import DistilledStudent, fold
from student_train.models.gru4rec import GRU4Rec
from student_train.models.student import Student

N = 11
STUDENTS = ["gru4rec", "caser", "sasrec", "dros", "hstu"]
HISTORY = torch.tensor([[N, N, 3, 4, 5], [1, 2, 3, 4, 5], [N, N, N, N, 7]])


def model(name: str = "sasrec", **changes: object) -> ModelConfig:
    return ModelConfig(**({"name": name, "hidden_size": 8, "num_heads": 2, "num_layers": 2, "max_length": 5} | changes))


def build(name: str, **changes: object) -> Student:
    torch.manual_seed(0)
    return Student(model(name, **changes), N).eval()


@pytest.mark.parametrize("output", ["tied", "separate"])
@pytest.mark.parametrize("name", STUDENTS)
def test_scores_cover_the_catalogue_for_every_student(name: str, output: str) -> None:
    scores = build(name, output=output)(HISTORY)
    assert scores.shape == (3, N)
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", STUDENTS)
def test_padding_does_not_change_scores(name: str) -> None:
    student = build(name)
    assert torch.allclose(student(HISTORY[:1]), student(HISTORY[:1, 2:]), atol=1e-6)


@pytest.mark.parametrize("name", STUDENTS)
def test_the_order_of_the_history_matters(name: str) -> None:
    student = build(name)
    turned = HISTORY[1:2].flip(1)
    assert not torch.allclose(student(HISTORY[1:2]), student(turned), atol=1e-5)


def test_gru4rec_equals_torch_gru_on_each_unpadded_history() -> None:
    torch.manual_seed(0)
    backbone = GRU4Rec(model(num_layers=1)).eval()
    embedded = torch.randn(3, 5, 8)
    found = backbone(embedded, HISTORY != N)
    for row, length in enumerate([3, 5, 1]):
        _, expected = backbone.gru(embedded[row : row + 1, 5 - length :])
        assert torch.allclose(found[row], backbone.norm(expected[-1, 0]), atol=1e-5)


def test_heads_that_do_not_divide_the_hidden_size_are_refused() -> None:
    with pytest.raises(ValidationError, match="num_heads 3 must divide hidden_size 8"):
        model(num_heads=3)


CASES = [
    ("tied", {}),
    ("separate", {}),
    ("separate", {"embedding": "input"}),
    ("separate", {"embedding": "output"}),
    ("tied", {"embedding": "none"}),
    ("tied", {"projector": "mlp"}),
    ("tied", {"projector_start": "pca", "freeze_projector": True}),
    ("separate", {"offset": False}),
]


def learner(name: str, output: str, **distillation: object) -> DistilledStudent:
    torch.manual_seed(0)
    config = DistillationConfig(ed_weight=0.7, **distillation)
    return DistilledStudent(model(name, output=output), N, torch.randn(N, 32) * 50 + 3, config).eval()


@pytest.mark.parametrize(("output", "distillation"), CASES)
@pytest.mark.parametrize("name", STUDENTS)
def test_the_folded_student_scores_like_the_learner_and_is_as_small_as_the_plain_one(
    name: str, output: str, distillation: dict[str, object]
) -> None:
    taught = learner(name, output, **distillation)
    folded = Student(model(name, output=output), N).eval()
    folded.load_state_dict(fold(taught.state_dict(), taught))
    assert torch.allclose(folded(HISTORY), taught(HISTORY).scores, atol=1e-5)
    assert {k: v.shape for k, v in folded.state_dict().items()} == {
        k: v.shape for k, v in taught.student.state_dict().items()
    }
    changed = not torch.allclose(folded(HISTORY), taught.student(HISTORY), atol=1e-3)
    assert changed == (distillation.get("embedding") != "none")


@pytest.mark.parametrize(("output", "distillation"), CASES)
def test_scores_of_asked_items_are_those_of_the_whole_catalogue(output: str, distillation: dict[str, object]) -> None:
    taught = learner("sasrec", output, **distillation)
    items = torch.tensor([[0, 4], [N - 1, 3], [7, 7]])
    asked, every = taught(HISTORY, items).scores, taught(HISTORY).scores
    assert torch.allclose(asked, every.gather(1, items), atol=1e-5)


def test_both_ways_of_scoring_have_the_same_gradients() -> None:
    items, grown = torch.tensor([[0, 4], [N - 1, 3], [7, 7]]), []
    for asked in (True, False):
        taught = learner("sasrec", "tied")
        scores = taught(HISTORY, items).scores if asked else taught(HISTORY).scores.gather(1, items)
        scores.square().sum().backward()
        grown.append([p.grad for p in taught.parameters()])
    for one, other in zip(*grown, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_one_side_of_a_tied_table_cannot_be_distilled() -> None:
    with pytest.raises(ConfigError, match=r"set `model.output` to separate"):
        learner("sasrec", "tied", embedding="input")


def test_a_student_without_offsets_has_projected_embeddings_alone() -> None:
    taught = learner("sasrec", "tied", offset=False)
    assert taught.student.items.weight.abs().sum() == 0
    assert not taught.student.items.weight.requires_grad


def test_a_projector_that_starts_at_the_principal_components_keeps_most_of_a_low_rank_teacher() -> None:
    torch.manual_seed(0)
    teacher = standardise(torch.randn(50, 8) @ torch.randn(8, 32))
    projected = projector(teacher, 8, DistillationConfig(projector_start="pca"))(teacher)
    assert torch.allclose(projected @ projected.T, teacher @ teacher.T, atol=1e-4)


def test_standardised_embeddings_do_not_depend_on_the_teachers_scale_or_offset() -> None:
    embeddings = torch.randn(N, 6)
    assert torch.allclose(standardise(embeddings), standardise(embeddings * 40 - 5), atol=1e-5)
    assert standardise(embeddings).norm(dim=1).mean().item() == pytest.approx(1.0)


def test_teacher_embeddings_are_not_trained() -> None:
    taught = learner("sasrec", "tied")
    assert not any("teacher" in name for name in taught.state_dict())


@pytest.mark.parametrize("strategy", ["hint", "htd"])
def test_a_feature_loss_draws_item_embeddings_towards_the_teachers(strategy: str) -> None:
    taught = learner("sasrec", "tied", embedding="none", strategy=strategy)
    optimizer = torch.optim.Adam(taught.parameters(), 0.02)
    items = HISTORY[HISTORY < N].unique()
    losses = []
    for _ in range(150):
        loss = taught(HISTORY, compared_U=items).feature_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_the_repeat_weight_moves_the_scores_of_the_history_alone() -> None:
    student = build("sasrec")
    before = student(HISTORY)
    with torch.no_grad():
        student.repeat.fill_(-3)
    moved = student(HISTORY) - before
    counts = torch.stack([(item == HISTORY).sum(1) for item in range(N)], dim=1)
    assert torch.allclose(moved, -3.0 * counts, atol=1e-5)
    assert torch.allclose(
        student(HISTORY[:2], HISTORY[:2, -2:]), student(HISTORY[:2]).gather(1, HISTORY[:2, -2:]), atol=1e-5
    )
