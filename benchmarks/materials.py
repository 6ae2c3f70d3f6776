"""What the benchmarks of teachers run on: a data set, a teacher and histories; made where none are given."""

import argparse
from pathlib import Path

import pyarrow as pa

from data_prep.config import PrepareConfig, SyntheticConfig
from data_prep.prepare import prepare
from data_prep.reading import read_rows, read_titles, shards
from data_prep.schema import Split
from teacher_train.config import TrainTeacherConfig
from teacher_train.train import train_teacher

ITEMS = 3_459  # as many as Amazon Office has
TRAIN_ROWS = 3000


def parser(description: str | None, rows: int) -> argparse.ArgumentParser:
    """The options that the benchmarks share; ``rows`` is the default number."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dataset", type=Path, help="Data set directory; the synthetic one without.")
    options.add_argument("--teacher", type=Path, help="Teacher directory; without, one is briefly trained.")
    options.add_argument("--rows", type=int, default=rows, help="Rows that both sides work on.")
    options.add_argument("--train-rows", type=int, default=TRAIN_ROWS, help="Rows the teacher is trained on, twice.")
    options.add_argument("--gpu", action="store_true", help="Run both sides on a GPU.")
    return options


def made(arguments: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """The data set and the teacher that are given, or new ones in ``folder``."""
    dataset = arguments.dataset or synthetic(folder / "dataset")
    return dataset, arguments.teacher or trained(dataset, folder / "teacher", arguments.train_rows)


def synthetic(directory: Path) -> Path:
    """The built-in data set with ITEMS items."""
    return prepare(PrepareConfig(synthetic=SyntheticConfig(items=ITEMS), output=directory))


def trained(dataset: Path, directory: Path, rows: int = TRAIN_ROWS) -> Path:
    """A teacher of two layers and width 256, trained on ``rows`` rows, twice."""
    config = TrainTeacherConfig(
        dataset=dataset, learn_from="titles", max_rows=rows, validation_rows=200, epochs=2, output=directory
    )
    return train_teacher(config)


def histories(dataset: Path, split: Split) -> list[tuple[str, ...]]:
    """The titles of every row's history, oldest first."""
    titles = read_titles(dataset)
    table = pa.concat_tables(read_rows(shard).select(["history"]) for shard in shards(dataset, split))
    return [tuple(titles[item] for item in history) for history in table["history"].to_pylist()]
