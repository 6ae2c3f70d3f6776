"""Rows per second of ``recommend --histories`` and the latency of single requests to a pulled student.

Run: ``python -m benchmarks.serving [--rows 1000000]``. The student is a SASRec of width 64 with random weights and
histories of 10: 3,459 items (as many as Amazon Office has) for the file, on all CPUs, with Ray's start left out and its
actors' start counted; 17,408 items (the paper's largest catalogue) for single requests without HTTP, on one thread.
The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

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

FILE_ITEMS, REQUEST_ITEMS, REQUESTS = 3_459, 17_408, 5_000


def main() -> None:
    """Measure both and print the figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000, help="Histories in the file.")
    rows = options.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        median, high = request_latency(Recommender(random_student(folder / "large", REQUEST_ITEMS)), REQUESTS)
        figures = {
            "batch_rows_per_second": batch_rows_per_second(folder, rows),
            "latency_p50_ms": median,
            "latency_p99_ms": high,
        }
    print(json.dumps(figures))


def batch_rows_per_second(folder: Path, rows: int) -> float:
    """Rows per second from the histories' file to the shards of answers."""
    student, histories = random_student(folder / "student", FILE_ITEMS), folder / "histories.parquet"
    items = np.random.default_rng(0).integers(FILE_ITEMS, size=rows * 10)
    words = pa.array([f"i{item}" for item in range(FILE_ITEMS)]).take(pa.array(items))
    ends = pa.array(np.arange(rows + 1, dtype=np.int32) * 10)
    pq.write_table(pa.table({"history": pa.ListArray.from_arrays(ends, words)}), histories)
    config = RecommendConfig(model=str(student), histories=histories, output=folder / "answers")
    with ray_session(ClusterConfig()):
        started = time.perf_counter()
        recommend(config)
        return rows / (time.perf_counter() - started)


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
