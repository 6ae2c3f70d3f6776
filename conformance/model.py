"""What a model (a sequence backbone) must hold."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional

from conformance.promise import promise
from data_prep.schema import ITEMS, ITEMS_FILE
from student_serve.recommender import Recommender
from student_train.config import ModelConfig
from student_train.exported import export_student
from student_train.models.student import Student

N_ITEMS, LENGTH, WIDTH = 12, 6, 16
HISTORIES = ([3, 4, 5, 6, 7, 8], [9, 1, 2], [11])


def check_model(name: str) -> None:
    """Put a model through the promises that training, evaluation, export and serving rely on.

    Args:
        name: as in ``--model``: a built-in name or a dotted path.

    Raises:
        ConformanceError: names the promise that is broken.
        ConfigError: the dotted path leads to nothing.
    """
    torch.manual_seed(0)
    config = ModelConfig(name=name, hidden_size=WIDTH, num_heads=2, num_layers=1, max_length=LENGTH, dropout=0.2)
    student = Student(config, N_ITEMS)
    _scores(student, name)
    _learns(student, name)
    _exports(student, config, name)


def _padded() -> torch.Tensor:
    rows = [[N_ITEMS] * (LENGTH - len(history)) + history for history in HISTORIES]
    return torch.tensor(rows)


@torch.inference_mode()
def _scores(student: Student, name: str) -> None:
    history_BL = _padded()
    scores_BN = student.eval()(history_BL)
    promise(scores_BN.shape == (len(HISTORIES), N_ITEMS), name, f"gives states [B, D], not {tuple(scores_BN.shape)}")
    promise(bool(scores_BN.isfinite().all()), name, "gives finite states, for histories of any length")
    promise(torch.equal(scores_BN, student(history_BL)), name, "is the same at every call in eval mode")
    alone_BN = torch.cat([student(row[None]) for row in history_BL])
    promise(torch.allclose(scores_BN, alone_BN, atol=1e-5), name, "does not let rows of a batch see each other")
    short_BN = student(history_BL[1:, LENGTH - 3 :])
    promise(torch.allclose(scores_BN[1:], short_BN, atol=1e-5), name, "does not look at padding (present_BL is False)")


def _learns(student: Student, name: str) -> None:
    history_BL = torch.stack([torch.randperm(N_ITEMS)[:LENGTH] for _ in range(64)])
    target_B = (history_BL[:, -1] + 1) % N_ITEMS
    optimizer = torch.optim.Adam(student.parameters(), 0.01)
    losses = []
    for _ in range(60):
        loss = functional.cross_entropy(student.train()(history_BL), target_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    without = [path for path, parameter in student.backbone.named_parameters() if parameter.grad is None]
    promise(not without, name, f"uses all of its parameters, so that ZeRO can spread them; not {', '.join(without)}")
    promise(
        losses[-1] < 0.8 * losses[0],
        name,
        f"learns the next item in 60 steps: loss {losses[0]:.3f} to {losses[-1]:.3f}",
    )


def _exports(student: Student, config: ModelConfig, name: str) -> None:
    columns = [range(N_ITEMS), [f"i{at}" for at in range(N_ITEMS)], [f"Title {at}" for at in range(N_ITEMS)]]
    with tempfile.TemporaryDirectory() as folder:
        items = Path(folder) / f"all-{ITEMS_FILE}"
        pq.write_table(pa.table([*columns, [1] * N_ITEMS], schema=ITEMS), items)
        export_student(Path(folder), student, config, items)
        served_BN = torch.from_numpy(Recommender(Path(folder)).scores([list(history) for history in HISTORIES]))
    with torch.inference_mode():
        scores_BN = student.eval()(_padded())
    difference = float((scores_BN - served_BN).abs().max())
    promise(difference < 1e-4, name, f"exports to ONNX with the same scores; they differ by {difference:.2g}")
