"""Rows per second of ``recommend --histories`` and the latency of single requests to a pulled student.

Run: ``python -m benchmarks.serving [--quick] [--rows 1000000]``. The student is a SASRec of width 64 with random
weights and histories of 10: 3,459 items (as many as Amazon Office has) for the file, on all CPUs, with Ray's start
left out and its actors' start counted; 17,408 items (the paper's largest catalogue) for single requests without HTTP,
on one thread. ``ratio_batch`` compares the file with a loop over its first rows in this process, on one thread.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.options import parse, parser, report
from cluster.config import ClusterConfig
from cluster.ray_session import ray_session
from cluster.storage import output_directory
from data_prep.schema import ITEMS
from model_registry.config import RecommendConfig
from model_registry.latency import request_latency
from model_registry.recommend import recommend
from student_serve.recommender import Recommender
from student_train.config import ModelConfig, TrainConfig
from student_train.exported import export_student
from student_train.models.student import Student

FILE_ITEMS, REQUEST_ITEMS = 3_459, 17_408
LOOP = 20_000  # rows of the loop


def main() -> None:
    """Measure both and print the figures."""
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="Histories in the file.")
    options.add_argument("--requests", type=int, default=5_000, help="Single requests.")
    asked = parse(options, rows=10_000, requests=100)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        median, high = request_latency(Recommender(random_student(folder / "large", REQUEST_ITEMS)), asked.requests)
        student = random_student(folder / "student", FILE_ITEMS)
        histories = random_histories(asked.rows)
        batch, loop = batch_rows_per_second(student, histories, folder), loop_rows_per_second(student, histories)
    report(
        {
            "batch_rows_per_second": batch,
            "ratio_batch": batch / loop,
            "latency_p50_ms": median,
            "latency_p99_ms": high,
        }
    )


def random_histories(rows: int) -> pa.Table:
    """Histories of ten item ids."""
    items = np.random.default_rng(0).integers(FILE_ITEMS, size=rows * 10)
    words = pa.array([f"i{item}" for item in range(FILE_ITEMS)]).take(pa.array(items))
    ends = pa.array(np.arange(rows + 1, dtype=np.int32) * 10)
    return pa.table({"history": pa.ListArray.from_arrays(ends, words)})


def batch_rows_per_second(student: Path, histories: pa.Table, folder: Path) -> float:
    """Rows per second from the histories' file to the shards of answers."""
    file = folder / "histories.parquet"
    pq.write_table(histories, file)
    config = RecommendConfig(model=str(student), histories=file, output=folder / "answers")
    with ray_session(ClusterConfig()):
        started = time.perf_counter()
        recommend(config)
        return len(histories) / (time.perf_counter() - started)


def loop_rows_per_second(student: Path, histories: pa.Table) -> float:
    """Rows per second of one thread."""
    recommender, rows = Recommender(student), histories["history"][:LOOP].to_pylist()
    started = time.perf_counter()
    recommender.recommend(rows)
    return len(rows) / (time.perf_counter() - started)


def random_student(directory: Path, n_items: int) -> Path:
    """A student directory with random weights."""
    torch.manual_seed(0)
    model, items = ModelConfig(), directory.with_suffix(".items.parquet")
    columns = [range(n_items), [f"i{n}" for n in range(n_items)], [f"Some product, number {n}" for n in range(n_items)]]
    pq.write_table(pa.table([*columns, range(n_items)], schema=ITEMS), items)
    with output_directory(directory, verb="train", config=TrainConfig(model=model)) as draft:
        export_student(draft.path, Student(model, n_items), model, items)
    return directory


if __name__ == "__main__":
    main()
