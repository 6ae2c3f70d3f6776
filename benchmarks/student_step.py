"""Rows per second of the student's training step on random data: plain, ranking distillation, full method with DRO.

Run: ``python -m benchmarks.student_step [--quick]``. The workload is that of the official code on the paper's largest
catalogue: SASRec of width 64 with separate output table under BCE, histories of 10, 17,408 items, teacher width 4,096
joined on the input side, batch 256; ``--quick`` takes a tenth of items and teacher width. ``tied_full`` is what
dllm2rec trains by default instead: full softmax, teacher embeddings on both sides of one table. ``ratio_step_ranking``
and ``ratio_step_full`` say what the distillation leaves of the plain speed.
"""

import time

import torch
from torch import Tensor

from benchmarks.options import parse, parser, report
from student_train.config import DistillationConfig, LossConfig, ModelConfig, TrainConfig
from student_train.loop import TrainingData, build
from student_train.rows import Rows, TeacherLabels
from student_train.training_loss import TrainingLoss

BATCH, HISTORY = 256, 10
OFFICIAL_MODEL = ModelConfig(num_layers=1, num_heads=1, dropout=0.1, max_length=HISTORY, output="separate")
BCE = LossConfig(name="bce")
PAPER = DistillationConfig(strategy="dllm2rec", embedding="input", cloze=0)
CASES = {
    "plain": TrainConfig(
        model=OFFICIAL_MODEL, loss=BCE, distillation=PAPER.model_copy(update={"lam": 0, "ed_weight": 0})
    ),
    "ranking": TrainConfig(model=OFFICIAL_MODEL, loss=BCE, distillation=PAPER.model_copy(update={"ed_weight": 0})),
    "full": TrainConfig(model=OFFICIAL_MODEL.model_copy(update={"name": "dros"}), loss=BCE, distillation=PAPER),
    "tied_full": TrainConfig(model=ModelConfig(max_length=HISTORY)),
}


def main() -> None:
    """Measure every case and print the figures."""
    options = parser(__doc__)
    options.add_argument("--items", type=int, default=17_408, help="Items of the catalogue.")
    options.add_argument("--teacher-width", type=int, default=4_096, help="Width of the teacher's embeddings.")
    options.add_argument("--steps", type=int, default=10, help="Steps measured per case.")
    asked = parse(options, items=1_741, teacher_width=410)
    rates = {
        case: rows_per_second(config, asked.items, asked.teacher_width, asked.steps) for case, config in CASES.items()
    }
    figures = {f"rows_per_second_{case}": rate for case, rate in rates.items()}
    report(figures | {f"ratio_step_{case}": rates[case] / rates["plain"] for case in ("ranking", "full")})


def rows_per_second(config: TrainConfig, n_items: int, teacher_width: int, steps: int) -> float:
    """Rows per second of forward, losses, backward and AdamW."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(100, (n_items,), generator=generator)
    rows = _rows(n_items, config.distillation.top_k, generator)
    teacher = torch.randn(n_items, teacher_width, generator=generator)
    model = build(config, TrainingData(rows, rows, counts, teacher)).train()
    optimizer = torch.optim.AdamW(model.parameters())
    losses = TrainingLoss(config, counts)

    def step(batch: Rows) -> None:
        loss = losses(model, losses.prepare(batch, generator), generator).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for batch in rows.batches(BATCH, 2, generator):
        step(batch)
    started = time.perf_counter()
    for batch in rows.batches(BATCH, steps, generator):
        step(batch)
    return BATCH * steps / (time.perf_counter() - started)


def _rows(n_items: int, top_k: int, generator: torch.Generator) -> Rows:
    def items(*size: int) -> Tensor:
        return torch.randint(n_items, size, generator=generator)

    count = 4 * BATCH
    scores = torch.rand(count, top_k, generator=generator)
    taught = TeacherLabels(items(count, top_k), -scores, scores, torch.ones(count))
    return Rows(torch.arange(count), items(count, HISTORY), items(count), taught)


if __name__ == "__main__":
    main()
