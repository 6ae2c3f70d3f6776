"""What a finished training leaves: the exported student, its figures and its learning curve."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cluster.engine import all_of_workers, mean_over_workers
from cluster.files import read_parquet
from cluster.storage import read_manifest
from data_prep.reading import read_titles
from data_prep.schema import ITEMS_FILE, RANKS, RANKS_FILE, sequence_files
from student_train.assessment import TOP, Catalogue, assess
from student_train.config import TrainConfig
from student_train.evaluation import Metrics, ranks_of_targets, scored
from student_train.exported import export_student
from student_train.labels import failed_rows, read_labels
from student_train.loop import TrainerState, TrainingData
from student_train.models.student import Student
from student_train.rows import Rows, read_rows

CURVE_FILE = "curve.json"
RESULT_FILE = "result.json"


def measure(config: TrainConfig, data: TrainingData, student: Student, state: TrainerState) -> dict[str, Any]:
    """Evaluate the chosen student on test, once; a collective call.

    Returns:
        ``metrics`` (validation and test, seconds) and ``counts`` of the student's manifest.
    """
    rows = _test_rows(config, data, student.n_items)
    catalogue = Catalogue.of(read_titles(config.dataset), data.train_count)
    device = next(student.parameters()).device
    started = time.perf_counter()
    rank_all(student, rows, device)
    seconds = time.perf_counter() - started
    test = assess(student, rows, catalogue, device, config.filter_history, Metrics(config.metrics))
    validation = {f"validation_{name}": value for name, value in state.best.items() if name != "loss"}
    return {
        "metrics": validation
        | {f"test_{name}": value for name, value in test.items()}
        | {
            "test_seconds": float(mean_over_workers(torch.tensor(seconds))),
            "train_seconds": state.seconds,
            "train_rows_per_second": data.total_rows * state.epoch / state.seconds,
        },
        "counts": {
            "parameters": sum(p.numel() for p in student.parameters()),
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "world_size": data.world_size,
        },
    }


def rank_all(student: Student, rows: Rows, device: torch.device) -> None:
    """Score the catalogue for every row and take the top 20: what answering the test set costs."""
    for _, scores_BN in scored(student, rows, device):
        scores_BN.topk(min(TOP, student.n_items), dim=1)


def _test_rows(config: TrainConfig, data: TrainingData, padding: int) -> Rows:
    """Test rows, with the teacher's lists if the labels have one for each."""
    rows = read_rows(config.dataset, "test", config.model.max_length, padding, data.rank, data.world_size)
    if config.labels is not None:
        stored = read_manifest(config.labels, "label").config
        if "test" in stored["splits"] and not len(failed_rows(config.labels, "test")):
            rows.teacher = read_labels(rows.row_id, config.labels, "test", min(TOP, stored["top_k"]))
    return rows


def gate_ranks(config: TrainConfig, data: TrainingData, student: Student) -> pa.Table | None:
    """Where the student ranks the true item of every gate row (schema RANKS), if any; a collective call."""
    if not read_manifest(config.dataset).counts.get("gate"):
        return None
    length, padding, device = config.model.max_length, student.n_items, next(student.parameters()).device
    rows = read_rows(config.dataset, "gate", length, padding, data.rank, data.world_size, allow_empty=True)
    rank_S, _ = ranks_of_targets(student, rows, device, config.filter_history)
    row_id, rank = all_of_workers(torch.stack([rows.row_id.cpu(), rank_S], dim=1)).T.numpy()
    return pa.table([row_id, _gate_users(config.dataset, row_id), rank.astype("int32")], schema=RANKS)


def _gate_users(dataset: Path, row_id_S: np.ndarray) -> np.ndarray:
    """The number of the user [S] of every gate row, by the order of users in the data set."""
    files = sequence_files(dataset, "gate")
    rows = pa.concat_tables(read_parquet(file, ["row_id", "user_id"]) for file in files).sort_by("row_id")
    users = rows["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    found: np.ndarray = users[np.searchsorted(rows["row_id"].to_numpy(), row_id_S)]
    return found


def write_student(
    directory: Path,
    config: TrainConfig,
    student: Student,
    state: TrainerState,
    outcome: dict[str, Any],
    ranks: pa.Table | None,
) -> None:
    """Write the exported student, its ranks of the gate rows, its learning curve and its figures into ``directory``."""
    export_student(directory, student, config.model, config.dataset / ITEMS_FILE)
    if ranks is not None:
        pq.write_table(ranks, directory / RANKS_FILE)
    (directory / CURVE_FILE).write_text(json.dumps(state.history, indent=1) + "\n")
    (directory / RESULT_FILE).write_text(json.dumps(outcome, indent=1) + "\n")


def progress_text(state: TrainerState) -> str:
    """Loss, validation figures and speed of the last evaluation."""
    now = state.history[-1]
    return (
        f"loss {now['loss']:.4f}, validation HR@20 {now['hr@20']:.4f} NDCG@20 {now['ndcg@20']:.4f} (best "
        f"{state.best['ndcg@20']:.4f} in epoch {state.best_epoch})"
    )
