"""What the benchmarks of teachers run on: a data set, a teacher and histories; made where none are given."""

import argparse
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from benchmarks.options import parse, parser
from data_prep.config import PrepareConfig, SyntheticConfig
from data_prep.prepare import prepare
from data_prep.reading import read_rows, read_titles, shards
from data_prep.schema import Split
from teacher_train.config import TrainTeacherConfig
from teacher_train.train import train_teacher


class TitleRows(NamedTuple):
    """The titles of B rows: histories, oldest first, and targets."""

    histories: list[tuple[str, ...]]
    targets: list[str]


def teacher_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that benchmarks of teachers share."""
    options = parser(description)
    options.add_argument("--dataset", type=Path, help="Data set directory; the synthetic one without.")
    options.add_argument("--teacher", type=Path, help="Teacher directory; without, one is briefly trained.")
    # As many items as Amazon Office has.
    options.add_argument("--items", type=int, default=3_459, help="Items of the synthetic data set.")
    options.add_argument("--train-rows", type=int, default=3_000, help="Rows the teacher is trained on, twice.")
    options.add_argument("--gpu", action="store_true", help="Run both sides on a GPU.")
    return options


def parse_teacher(options: argparse.ArgumentParser, **quick: int) -> argparse.Namespace:
    """The options of the command line; ``quick`` holds the defaults of ``--quick`` beside those of a small teacher."""
    return parse(options, items=480, train_rows=320, **quick)


def made(arguments: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """The data set and the teacher that are given, or new ones in ``folder``: of two layers and width 256."""
    dataset, teacher = arguments.dataset, arguments.teacher
    if dataset is None:
        synthetic = SyntheticConfig(items=arguments.items)
        dataset = prepare(PrepareConfig(synthetic=synthetic, output=folder / "dataset"))
    if teacher is None:
        config = TrainTeacherConfig(
            dataset=dataset,
            learn_from="titles",
            max_rows=arguments.train_rows,
            validation_rows=200,
            epochs=2,
            output=folder / "teacher",
        )
        teacher = train_teacher(config)
    return dataset, teacher


def title_rows(dataset: Path, split: Split) -> TitleRows:
    """All rows of a split."""
    titles = read_titles(dataset)
    table = pa.concat_tables(read_rows(shard).select(["history", "target"]) for shard in shards(dataset, split))
    histories = [tuple(titles[item] for item in history) for history in table["history"].to_pylist()]
    return TitleRows(histories, [titles[item] for item in table["target"].to_pylist()])
