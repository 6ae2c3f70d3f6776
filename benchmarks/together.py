"""Students trained together in batched steps against the same ones trained one after another, in rows per second.

Run: ``python -m benchmarks.together [--gpu]``. Members differ in seed, learning rate and loss weights; everything else,
threads too, is the same for both sides. Counted are training and evaluation, not the start of a training. Sides take
turns; ratios are medians over the rounds.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from student_train.config import DistillationConfig, LossConfig, ModelConfig, TrainConfig
from student_train.loop import TrainingData, Progress, fit
from student_train.rows import Rows, TeacherLabels
from student_train.together import fit_together

TOP_K = 20


def main() -> None:
    """Measure both sides and print the figures."""
    arguments = _arguments()
    if not arguments.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    materials = _materials(arguments)
    members = _members(arguments)
    few = members[: arguments.separate]
    _separate(few[:1], materials), _together(members[:2], materials, arguments.at_once)
    rounds = [
        (_separate(few, materials), _together(members, materials, arguments.at_once)) for _ in range(arguments.rounds)
    ]
    figures = {
        "batched_trials_ratio": statistics.median(together / separate for separate, together in rounds),
        "rows_per_second_together": statistics.median(together for _, together in rounds),
        "rows_per_second_separate": statistics.median(separate for separate, _ in rounds),
    }
    where = torch.cuda.get_device_name() if arguments.gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"{vars(arguments)} on {where}")
    print(json.dumps(figures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="Run both sides on a GPU.")
    parser.add_argument("--members", type=int, default=16, help="Students that train together.")
    parser.add_argument("--separate", type=int, default=2, help="How many of them also train one after another.")
    parser.add_argument("--at-once", type=int, help="Members per batched step; chosen by the code without.")
    parser.add_argument("--rounds", type=int, default=3, help="Turns of both sides.")
    parser.add_argument("--epochs", type=int, default=2, help="Epochs of a training.")
    parser.add_argument("--student", default="sasrec", help="Backbone, of width 64.")
    parser.add_argument("--loss", default="softmax", help="The student's own loss.")
    parser.add_argument("--strategy", default="soft", help="Distillation strategy; plain has no teacher.")
    parser.add_argument("--items", type=int, default=1000, help="Catalogue.")
    parser.add_argument("--batch", type=int, default=64, help="Rows per step and member.")
    parser.add_argument("--rows", type=int, default=2048, help="Train rows.")
    parser.add_argument("--teacher-width", type=int, default=128, help="Width of the teacher's item embeddings.")
    return parser.parse_args()


def _separate(members: Sequence[TrainConfig], materials: TrainingData) -> float:
    return _rate([fit(member, materials, lambda *_: True)[1] for member in members], materials)


def _together(members: Sequence[TrainConfig], materials: TrainingData, at_once: int | None) -> float:
    found = fit_together(members, materials, lambda *_: True, at_once=at_once)
    return _rate([one[1] for one in found if isinstance(one, tuple)], materials)


def _rate(trained: Sequence[Progress], materials: TrainingData) -> float:
    """Rows per second over all members."""
    rows = sum(progress.epoch for progress in trained) * materials.total_rows
    return rows / sum(progress.seconds for progress in trained)


def _members(arguments: argparse.Namespace) -> list[TrainConfig]:
    return [
        TrainConfig(
            student=arguments.student,
            labels=None if arguments.strategy == "plain" else Path("labels"),
            shape=ModelConfig(width=64),
            objective=LossConfig(name=arguments.loss),
            distillation=_distillation(arguments, number),
            learning_rate=1e-3 * (1 + number / arguments.members),
            batch=arguments.batch,
            epochs=arguments.epochs,
            seed=number,
        )
        for number in range(arguments.members)
    ]


def _distillation(arguments: argparse.Namespace, number: int) -> DistillationConfig:
    if arguments.strategy == "plain":
        return DistillationConfig()
    share = (1 + number) / arguments.members
    return DistillationConfig(strategy=arguments.strategy, lam=share, ed_weight=2 * share, temperature=share)


def _materials(arguments: argparse.Namespace) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    taught = arguments.strategy != "plain"

    def items(*size: int) -> Tensor:
        return torch.randint(arguments.items, size, generator=generator)

    def rows(count: int, taught: bool) -> Rows:
        scores = torch.rand(count, TOP_K, generator=generator).sort(1, descending=True).values
        teacher = TeacherLabels(items(count, TOP_K), scores, -scores, torch.ones(count)) if taught else None
        return Rows(torch.arange(count), items(count, 10), items(count), teacher)

    embeddings = torch.randn(arguments.items, arguments.teacher_width, generator=generator) if taught else None
    return TrainingData(
        train=rows(arguments.rows, taught),
        validation=rows(arguments.rows // 8, taught=False),
        train_count=torch.randint(100, (arguments.items,), generator=generator),
        teacher_embeddings=embeddings,
        total_rows=arguments.rows,
    )


if __name__ == "__main__":
    main()
