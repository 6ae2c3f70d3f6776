"""The assessment of a student against figures counted by hand, and its independence of the number of blocks."""

import json
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.multiprocessing.spawn import start_processes

from cluster.engine import sum_over_workers
from student_train import evaluation
from student_train.assessment import Catalogue, assess, gini
from student_train.evaluation import metric_means
from student_train.rows import Rows, TeacherLabels

N = 40
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def alone() -> None:
    """A group of one worker."""
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


class Table(nn.Module):
    """Scores by the newest history item."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.randn(N + 1, N, generator=torch.Generator().manual_seed(0))

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        return self.scores[history[:, -1]]


def rows(count: int = 300, teacher: bool = True) -> Rows:
    generator = torch.Generator().manual_seed(1)
    history, target = torch.randint(N, (count, 3), generator=generator), torch.randint(N, (count,), generator=generator)
    items = torch.stack([torch.randperm(N, generator=generator)[:20] for _ in range(count)])
    taught = TeacherLabels(items, items.float(), items.float(), target.float())
    return Rows(torch.arange(count), history, target, taught if teacher else None)


def catalogue() -> Catalogue:
    counts = torch.arange(N)
    return Catalogue.of([f"Title {at // 2}" for at in range(N)], counts)


def test_every_figure_equals_a_count_by_hand() -> None:
    student, given = Table(), rows()
    found = assess(student, given, catalogue(), CPU)
    scores = student(given.history)
    order = scores.argsort(1, descending=True)
    place = (order == given.target[:, None]).int().argmax(1)
    hit = place < 20
    assert found["hr@20"] == pytest.approx(hit.double().mean().item())
    head = given.target >= N - 8
    unseen = given.target == 0
    assert found["head_hr@20"] == pytest.approx(hit[head].double().mean().item())
    assert found["tail_hr@20"] == pytest.approx(hit[~head & ~unseen].double().mean().item())
    assert found["unseen_hr@20"] == pytest.approx(hit[unseen].double().mean().item())
    by_title = []
    for row, target in zip(order.tolist(), given.target.tolist(), strict=True):
        titles = list(dict.fromkeys(item // 2 for item in row))
        by_title.append(titles.index(target // 2) < 20)
    assert found["title_hr@20"] == pytest.approx(sum(by_title) / len(by_title))
    top = order[:, :20]
    assert found["coverage@20"] == len(top.unique()) / N
    shared = [len(set(a) & set(b)) / 20 for a, b in zip(top.tolist(), given.teacher.items.tolist(), strict=True)]
    assert found["overlap@20"] == pytest.approx(sum(shared) / len(shared))


def test_intervals_are_as_wide_as_the_binomial_says() -> None:
    found = assess(Table(), rows(), catalogue(), CPU)
    width = found["hr@20_high"] - found["hr@20_low"]
    assert found["hr@20_low"] < found["hr@20"] < found["hr@20_high"]
    expected = 2 * 1.96 * (found["hr@20"] * (1 - found["hr@20"]) / 300) ** 0.5
    assert width == pytest.approx(expected, rel=0.15)


def test_blocks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = assess(Table(), rows(), catalogue(), CPU)
    monkeypatch.setattr(evaluation, "BLOCK", 77)
    parts = assess(Table(), rows(), catalogue(), CPU)
    assert parts == whole


def shared_out(rank: int, store: str, world: int, found: Path) -> None:
    """The figures of one of ``world`` workers, each with its slice of the rows."""
    dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world)
    given = rows()
    own = given.take(torch.arange(300)[300 * rank // world : 300 * (rank + 1) // world])
    student = Table()
    validation = metric_means(sum_over_workers(evaluation.evaluate(student, own, CPU)))
    figures = {"test": assess(student, own, catalogue(), CPU), "validation": validation}
    (found / f"{rank}.json").write_text(json.dumps(figures))


def test_figures_and_intervals_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    start_processes(shared_out, (str(tmp_path / "store"), 2, tmp_path), nprocs=2)
    first, second = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))]
    validation = metric_means(evaluation.evaluate(Table(), rows(), CPU))
    assert first == second == {"test": assess(Table(), rows(), catalogue(), CPU), "validation": validation}


def test_rows_without_teacher_have_no_overlap() -> None:
    assert "overlap@20" not in assess(Table(), rows(teacher=False), catalogue(), CPU)


def test_gini_of_equal_and_of_concentrated_counts() -> None:
    assert gini(torch.full((10,), 3.0)) == pytest.approx(0)
    assert gini(torch.tensor([0.0] * 9 + [5.0])) == pytest.approx(0.9)
    assert gini(torch.tensor([1.0, 3.0])) == pytest.approx(0.25)
