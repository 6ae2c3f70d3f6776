"""Rows per second of the student's training step on random data: plain, ranking distillation, full method with DRO.

Run: ``python -m benchmarks.student_step [--quick]``. The workload is the paper's: SASRec of width 64, histories of 10,
17,408 items, teacher width 4,096, batch 256; ``--quick`` takes a tenth of items and teacher width.
"""

import argparse
import json
import time

import torch
from torch import Tensor

from student_train.config import DistillationConfig, ObjectiveConfig, StudentConfig, TrainConfig
from student_train.loop import Materials, build
from student_train.objectives.dro import propensity
from student_train.rows import Rows
from student_train.step import batch_losses

BATCH, HISTORY = 256, 10
CASES = {
    "plain": ("sasrec", DistillationConfig(lam=0, ed_weight=0)),
    "ranking": ("sasrec", DistillationConfig(ed_weight=0)),
    "full": ("dros", DistillationConfig()),
}


def main() -> None:
    """Measure every case and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="A tenth of the catalogue and of the teacher's width.")
    parser.add_argument("--steps", type=int, default=10, help="Steps measured per case.")
    arguments = parser.parse_args()
    n_items, teacher_width = (1741, 410) if arguments.quick else (17_408, 4096)
    figures = {
        f"rows_per_second_{case}": rows_per_second(case, n_items, teacher_width, arguments.steps) for case in CASES
    }
    print(f"{n_items} items, teacher width {teacher_width}, batch {BATCH}, {torch.get_num_threads()} threads")
    for name, value in figures.items():
        print(f"{name:<28}{value:>10,.0f}")
    print(json.dumps(figures))


def rows_per_second(case: str, n_items: int, teacher_width: int, steps: int) -> float:
    """Rows per second of forward, losses, backward and AdamW."""
    student, distillation = CASES[case]
    shape = StudentConfig(layers=1, heads=1, dropout=0.1, history=HISTORY)
    config = TrainConfig(student=student, shape=shape, objective=ObjectiveConfig(loss="bce"), distillation=distillation)
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(100, (n_items,), generator=generator)
    rows = _rows(n_items, distillation.top_k, generator)
    teacher = torch.randn(n_items, teacher_width, generator=generator)
    model = build(config, Materials(rows, rows, counts, teacher)).train()
    optimizer = torch.optim.AdamW(model.parameters())
    propensity_N = propensity(counts)

    def step(batch: Rows) -> None:
        loss = batch_losses(model(batch.history), batch, propensity_N, config, generator).total
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
    return Rows(torch.arange(count), items(count, HISTORY), items(count), items(count, top_k), torch.ones(count))


if __name__ == "__main__":
    main()
