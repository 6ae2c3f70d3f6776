"""A tiny data set with an order to learn, and one teacher trained on it for all tests."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.config import Config, ResourcesConfig
from cluster.storage import output_directory
from data_prep.schema import ITEMS, ITEMS_FILE, SEQUENCES, SPLITS, shard_name

COLOURS = ("Red", "Green", "Blue", "Black")
THINGS = ("Castle", "River", "Garden", "Tower", "Island", "Forest")
TITLES = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
ROWS = {"train": 160, "validation": 24, "test": 30}


class Nothing(Config):
    """Config of a data set that no verb made."""


def write_dataset(path: Path, titles: list[str], seed: int = 0) -> Path:
    """Users walk through the catalogue in steps of one; two shards per split; row ids start at 100."""
    generator = np.random.default_rng(seed)
    items = [[at, f"i{at}", title, 0] for at, title in enumerate(titles)]
    row_id = 100
    with output_directory(path, verb="prepare", config=Nothing()) as draft:
        pq.write_table(
            pa.Table.from_arrays(list(map(pa.array, zip(*items, strict=True))), schema=ITEMS), draft.path / ITEMS_FILE
        )
        for split in SPLITS:
            rows = []
            for _ in range(ROWS[split]):
                start, length = generator.integers(len(titles)), generator.integers(1, 6)
                walk = [int((start + step) % len(titles)) for step in range(length + 1)]
                rows.append((row_id, f"u{row_id}", int(length), walk[:-1], walk[-1], float(row_id)))
                row_id += 1
            _write_shards(rows, draft.path / "sequences" / split)
            draft.counts[split] = len(rows)
    return path


def _write_shards(rows: list[tuple], folder: Path) -> None:
    folder.mkdir(parents=True)
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        table = pa.table([list(column) for column in zip(*part, strict=True)], schema=SEQUENCES)
        pq.write_table(table, folder / shard_name(number))


class TinyTeacher(NamedTuple):
    """A data set and the teacher trained on it."""

    dataset: Path
    teacher: Path


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("tiny") / "dataset", TITLES)


@pytest.fixture(scope="session")
def tiny_teacher(tiny_dataset: Path, ray_local: None) -> TinyTeacher:
    """A teacher trained by the verb itself, by two workers under ZeRO stage 1."""
    from cluster.config import DeepSpeedConfig
    from teacher_train.config import TeacherModelConfig, TrainTeacherConfig
    from teacher_train.train import train_teacher

    config = TrainTeacherConfig(
        dataset=tiny_dataset,
        model=TeacherModelConfig(num_layers=1, hidden_size=64, num_heads=2, vocab_size=512),
        epochs=8,
        micro_batch=8,
        learning_rate=1e-2,
        patience=8,
        resume=False,
        deepspeed=DeepSpeedConfig(zero_stage=1),
        resources=ResourcesConfig(workers=2),
        output=tiny_dataset.parent / "teacher",
    )
    return TinyTeacher(tiny_dataset, train_teacher(config))
