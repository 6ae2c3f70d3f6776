"""Students, losses, strategies, evaluation and nearest items on a GPU in name: no mix of devices, no waiting."""

import pytest
import torch
from torch import Tensor

from data_prep.schema import ScoreKind
from student_train import assessment, evaluation
from student_train.assessment import Catalogue
from student_train.batch import made_ahead
from student_train.components import BACKBONES, LOSSES, STRATEGIES
from student_train.config import DistillationConfig, LossConfig, ModelConfig, TrainConfig
from student_train.distilled_student import DistilledStudent
from student_train.models.student import Student
from student_train.rows import Rows, TeacherLabels
from student_train.training_loss import TrainingLoss
from teacher_infer import nearest
from tests.fake_cuda import CUDA, fake_cuda, moved

N, B, L, K, E = 40, 6, 5, 4, 12
MODEL = ModelConfig(hidden_size=8, num_heads=2, num_layers=2, max_length=L)


def rows(teacher: bool = True) -> Rows:
    generator = torch.Generator().manual_seed(0)
    items = torch.stack([torch.randperm(N, generator=generator)[:K] for _ in range(B)])
    distance = torch.rand(B, K, generator=generator).sort(1).values
    taught = TeacherLabels(items, -distance, distance, torch.ones(B))
    history = torch.randint(N + 1, (B, L), generator=generator).sort(1, descending=True).values
    return Rows(torch.arange(B), history, torch.randint(N, (B,), generator=generator), taught if teacher else None)


def step_on_a_gpu(config: TrainConfig) -> None:
    """The forward half of a training step; the batch is made where it is made in training."""
    generator = torch.Generator()
    made = TrainingLoss(config, torch.arange(N)).prepare(rows(), generator)
    student = DistilledStudent(config.model, N, torch.randn(N, E), config.distillation)
    with fake_cuda() as put:
        loss = TrainingLoss(config, torch.arange(N), CUDA)
        (batch,) = made_ahead(iter([made]), CUDA)
        total = loss(moved(student, put), batch, generator).total
    assert total.device == CUDA and total.shape == ()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_beside_every_loss(strategy: str, loss: str) -> None:
    distillation = DistillationConfig(strategy=strategy, top_k=K, weigh_rows=True)
    dro = LossConfig(name=loss, dro_weight=0.1, negatives=2)
    step_on_a_gpu(TrainConfig(model=MODEL, loss=dro, distillation=distillation))


@pytest.mark.parametrize("side", ["both", "input", "output", "none"])
@pytest.mark.parametrize("lam", [0.0, 0.5])
@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_every_side_of_the_item_table(side: str, lam: float, loss: str) -> None:
    distillation = DistillationConfig(embedding=side, lam=lam, top_k=K)
    model = MODEL.model_copy(update={"output": "separate"})
    step_on_a_gpu(TrainConfig(model=model, loss=LossConfig(name=loss), distillation=distillation))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_model(name: str) -> None:
    step_on_a_gpu(TrainConfig(model=MODEL.model_copy(update={"name": name}), distillation=DistillationConfig(top_k=K)))


@pytest.mark.parametrize("name", BACKBONES)
def test_evaluation_looks_at_the_device_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Tensor] = []
    monkeypatch.setattr(evaluation, "_check", looks.append)
    monkeypatch.setattr(evaluation, "BLOCK", 2)
    catalogue = Catalogue.of([f"Title {at // 2}" for at in range(N)], torch.arange(N))
    student, given = Student(MODEL.model_copy(update={"name": name}), N), rows()
    with fake_cuda() as put:
        moved(student, put)
        rank_S, _ = evaluation.ranks_of_targets(student, given, CUDA, filter_history=True)
        seen = assessment._seen(student, given, catalogue, CUDA, filter_history=True)
    assert [look.device for look in looks] == [CUDA] * 2
    assert {values.device.type for values in (rank_S, *seen)} == {"cpu"}


class Alone:
    """Does what a pool of threads does: threads do not know that tensors are on a GPU in name only."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, *_: object) -> None: ...

    map = staticmethod(map)


@pytest.mark.parametrize("kind", ["distance", "cosine"])
def test_nearest_items(kind: ScoreKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "ThreadPoolExecutor", Alone)
    items, queries, excluded = torch.randn(N, E), torch.randn(B, E), torch.randint(N, (B, L))
    with fake_cuda(found=3):
        catalogue = nearest.Catalogue(items, kind, device=CUDA)
        found = catalogue._rank_block(queries, excluded.to(CUDA), K, 2 * K)
        scores = catalogue.scores(queries, excluded[:, 0])
    assert {part.device for part in found} == {CUDA} and scores.device.type == "cpu"
