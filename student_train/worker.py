"""What every worker of a training does: read its slice, train, evaluate; under Ray Train, or alone in this process."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ray import train as ray_train
from ray.train import Checkpoint
from safetensors.torch import load_file

from cluster.checkpoints import last_checkpoint
from cluster.console import report, say
from cluster.engine import mean_over_workers, on_the_cpu
from cluster.errors import UserError
from cluster.files import local_copy, read_parquet
from cluster.paths import storage_path
from cluster.storage import Manifest, read_manifest
from cluster.workers import Payload
from data_prep.schema import EMBEDDINGS_FILE, EMBEDDINGS_TENSOR, ITEMS_FILE
from data_prep.yardsticks import yardsticks
from student_train.config import TrainConfig
from student_train.labels import failed_rows, read_labels
from student_train.loop import TrainerState, TrainingData, fit
from student_train.outcome import RESULT_FILE, gate_ranks, measure, progress_text, write_student
from student_train.rows import read_rows

EPOCH_FILE = "epoch"


def train_worker(payload: Payload) -> None:
    """One Ray Train worker: report checkpoints now and then, and in the end the student."""
    context, config = ray_train.get_context(), TrainConfig.model_validate(payload["config"])
    rank, world_size = context.get_world_rank(), context.get_world_size()
    due = _Clock(config.checkpoint_seconds)

    def keep(state: TrainerState, save: Callable[[Path], None]) -> None:
        if not due():
            return
        if rank == 0:
            payload["unfinished"].note()
        with tempfile.TemporaryDirectory() as directory:
            save(Path(directory))
            (Path(directory) / EPOCH_FILE).write_text(str(state.epoch))
            ray_train.report({"epoch": state.epoch}, checkpoint=Checkpoint.from_directory(directory))

    with last_checkpoint() as rays, tempfile.TemporaryDirectory() as made:
        student = found = rays or payload["unfinished"].newest()
        if not (found and (found / RESULT_FILE).is_file()):  # else stopped after the end, before the student was taken
            student = Path(made)
            train_student(payload, student, rank, world_size, found, keep)
        ray_train.report({"epoch": config.epochs}, checkpoint=Checkpoint.from_directory(student) if rank == 0 else None)


def train_here(payload: Payload, output: Path) -> None:
    """Train as the one worker in this process and write the student to an existing directory.

    A short training takes seconds so; the processes of Ray Train need most of a minute to start.
    """
    config, unfinished = TrainConfig.model_validate(payload["config"]), payload["unfinished"]
    due, threads = _Clock(config.checkpoint_seconds), torch.get_num_threads()

    def keep(state: TrainerState, save: Callable[[Path], None]) -> None:
        def write(directory: Path) -> None:
            save(directory)
            (directory / EPOCH_FILE).write_text(str(state.epoch))

        if due():
            unfinished.note()
            unfinished.keep(write, state.epoch)

    torch.set_num_threads(config.resources.threads)
    try:
        found = unfinished.newest()
        if found and (found / RESULT_FILE).is_file():  # Ray Train ended it, and was stopped before it was taken
            shutil.copytree(found, output, dirs_exist_ok=True)
        else:
            with on_the_cpu():
                train_student(payload, output, checkpoint=found, keep=keep)
    except UserError:
        unfinished.remove()
        raise
    finally:
        torch.set_num_threads(threads)
    unfinished.remove()


class _Clock:
    """Says whether it is time for a checkpoint; a collective call, for all workers have to agree."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._kept = seconds, time.monotonic()

    def __call__(self) -> bool:
        overdue = time.monotonic() - self._kept >= self._seconds
        if not mean_over_workers(torch.tensor(float(overdue))):
            return False
        self._kept = time.monotonic()
        return True


def train_student(
    payload: Payload,
    output: Path,
    rank: int = 0,
    world_size: int = 1,
    checkpoint: Path | None = None,
    keep: Callable[[TrainerState, Callable[[Path], None]], None] | None = None,
) -> None:
    """Train, evaluate on test once, and on rank 0 write the student; a collective call of all workers.

    Args:
        payload: the config, the checkpoint to start from, what a stop leaves behind, and who listens.
        output: existing directory for the student.
        rank: of this worker.
        world_size: how many workers there are.
        checkpoint: of the same training, to resume from.
        keep: called after every evaluation with the state and a function that writes a checkpoint into a directory.
    """
    config = TrainConfig.model_validate(payload["config"])
    data = load_data(config, rank, world_size)
    if checkpoint and rank == 0:
        say(f"{config.output.name}: resumes after epoch {(checkpoint / EPOCH_FILE).read_text()}")

    def on_evaluation(state: TrainerState, save: Callable[[Path], None]) -> bool:
        if rank == 0:
            report(config.output.name, state.epoch, config.epochs, "epochs", progress_text(state))
            if payload["live"]:
                payload["live"].say(state.history[-1])
        if keep:
            keep(state, save)
        return True

    start = local_copy(storage_path(payload["start_from"])) if payload["start_from"] else None
    student, state = fit(config, data, on_evaluation, checkpoint or start)
    if rank == 0 and state.epoch < config.epochs:
        report(config.output.name, state.epoch, config.epochs, "epochs", progress_text(state), finished=True)
    outcome = measure(config, data, student, state)
    ranks = gate_ranks(config, data, student)
    if rank == 0:
        write_student(output, config, student, state, outcome, ranks)


def load_data(config: TrainConfig, rank: int = 0, world_size: int = 1) -> TrainingData:
    """Read a worker's slice of the data set and of the labels."""
    items = read_parquet(config.dataset / ITEMS_FILE, ["train_count"])
    length, padding = config.model.max_length, items.num_rows
    unlabelled = failed_rows(config.labels, "train") if config.labels else None
    rows = read_rows(config.dataset, "train", length, padding, rank, world_size, unlabelled)
    prepared, embeddings, teacher_ndcg = read_manifest(config.dataset), None, {}
    if config.labels is not None:
        teacher_ndcg = validation_ndcg(read_manifest(config.labels, "label"))
        rows.teacher = read_labels(rows.row_id, config.labels, "train", config.distillation.top_k)
        if (config.labels / EMBEDDINGS_FILE).is_file():
            embeddings = load_file(local_copy(config.labels / EMBEDDINGS_FILE))[EMBEDDINGS_TENSOR]
    return TrainingData(
        train=rows,
        validation=read_rows(config.dataset, "validation", length, padding, rank, world_size),
        train_count=torch.from_numpy(items["train_count"].to_numpy().copy()),
        teacher_embeddings=embeddings,
        teacher_ndcg=teacher_ndcg,
        yardstick=yardsticks(prepared.metrics, "validation")["transitions"],
        rank=rank,
        world_size=world_size,
        total_rows=prepared.counts["train"] - (0 if unlabelled is None else len(unlabelled)),
    )


def validation_ndcg(labels: Manifest) -> dict[str, float]:
    """``ndcg@K`` of the teacher on validation rows, if these are labelled."""
    prefix = "validation_"
    return {name.removeprefix(prefix): v for name, v in labels.metrics.items() if name.startswith(f"{prefix}ndcg@")}
