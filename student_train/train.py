"""The verb ``train``: a student on Ray Train workers, each with a DeepSpeed engine and its own shards."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch
from ray import train as ray_train
from ray.train import Checkpoint
from safetensors.torch import load_file

from cluster.checkpoints import checkpoint_storage, last_checkpoint
from cluster.console import report, say
from cluster.errors import ConfigError, StaleInputError
from cluster.identity import digest
from cluster.live import Live
from cluster.ray_session import ray_session
from cluster.storage import Manifest, check_free, check_made_from, fingerprint, output_directory, read_manifest
from cluster.workers import Payload, run_workers
from data_prep.schema import EMBEDDINGS_FILE, EMBEDDINGS_TENSOR, ITEMS_FILE
from data_prep.yardsticks import best_yardstick, yardsticks
from student_train.config import DistillationConfig, TrainConfig
from student_train.distillation import feature_based
from student_train.distilled_student import check_sides
from student_train.evaluation import protocol
from student_train.labels import failed_rows, read_labels
from student_train.loop import TrainerState, TrainingData, fit
from student_train.outcome import RESULT_FILE, measure, progress_text, validation_ranks, write_student
from student_train.rows import read_rows


def train(config: TrainConfig, start_from: Path | None = None) -> Path:
    """Train a student, evaluate it once on test, and write its directory.

    Args:
        config: what to train and how.
        start_from: checkpoint of a training of one worker to resume from, as searches leave them.

    Raises:
        StaleInputError: data set or labels are missing, unfinished, or do not belong together.
        ConfigError: a setting does not fit the data or the cluster.
    """
    check_free(config.output, "train", config.overwrite)
    inputs = check_inputs(config)
    say_if_unjudged(config)
    if not (config.track or config.register_as):
        return _train(config, inputs, start_from, None)
    from student_train.tracked import tracked

    return tracked(config, inputs, lambda live: _train(config, inputs, start_from, live))


def _train(config: TrainConfig, inputs: dict[str, str], start_from: Path | None, live: Live | None) -> Path:
    prepared = read_manifest(config.dataset, "prepare")
    with (
        ray_session(config.cluster),
        output_directory(
            config.output, verb="train", config=config, inputs=inputs, overwrite=config.overwrite
        ) as draft,
    ):
        start = str(start_from) if start_from else None
        payload = {"config": config.model_dump(mode="json"), "start_from": start, "live": live}
        run_workers(
            train_worker,
            payload,
            config.resources,
            name=f"train-{digest(config, inputs | _started(start_from))}",
            storage=checkpoint_storage(config.storage, config.output),
            max_failures=config.max_failures,
            output=draft.path,
        )
        outcome = json.loads((draft.path / RESULT_FILE).read_text())
        (draft.path / RESULT_FILE).unlink()
        draft.metrics, draft.counts = outcome["metrics"], outcome["counts"]
    say(
        f"{config.output}: {config.model.name}, test HR@20 {draft.metrics['test_hr@20']:.4f} NDCG@20 "
        f"{draft.metrics['test_ndcg@20']:.4f} ({protocol(config.filter_history, prepared.config)}), "
        f"{draft.counts['parameters']:,} parameters; to beat: {best_yardstick(prepared.metrics, 'test')}"
    )
    return config.output


def _started(start_from: Path | None) -> dict[str, str]:
    return {"start_from": fingerprint(start_from)} if start_from else {}


def check_inputs(config: TrainConfig) -> dict[str, str]:
    """Fingerprints of the inputs by name, after checking that they belong together.

    Raises:
        StaleInputError: see :func:`train`.
        ConfigError: ``distillation.top_k`` is larger than the stored lists.
    """
    dataset = read_manifest(config.dataset, "prepare")
    if not yardsticks(dataset.metrics, "validation"):
        raise StaleInputError(
            f"{config.dataset} was made by an earlier version, without yardsticks: run `prepare` again"
        )
    inputs = {"dataset": dataset.fingerprint}
    if config.labels is None:
        return inputs
    labels = read_manifest(config.labels, "label")
    check_made_from(config.labels, labels, "dataset", config.dataset, dataset)
    _check_labels(config, labels)
    return inputs | {"labels": labels.fingerprint, "teacher": labels.inputs["teacher"]}


def _needs_embeddings(distillation: DistillationConfig) -> str:
    """The setting that needs the teacher's item embeddings, or an empty text."""
    if distillation.lam and feature_based(distillation.strategy):
        return f"`distillation.strategy` = {distillation.strategy}"
    if distillation.uses_teacher_embeddings:
        return f"`distillation.embedding` = {distillation.embedding}"
    return ""


def _check_labels(config: TrainConfig, labels: Manifest) -> None:
    if config.labels is None:
        return
    stored = labels.config["top_k"]
    if config.distillation.top_k > stored:
        raise ConfigError(
            f"`distillation.top_k` = {config.distillation.top_k}, but {config.labels} holds lists of {stored}: lower "
            f"it or run `dllm2rec label --top-k {config.distillation.top_k}`"
        )
    if "train" not in labels.config["splits"]:
        raise StaleInputError(f"{config.labels} holds no labels of train rows: run `dllm2rec label --splits train …`")
    embeddings, needed = config.labels / EMBEDDINGS_FILE, _needs_embeddings(config.distillation)
    if needed and not embeddings.is_file():
        raise StaleInputError(f"{embeddings} is missing, which {needed} needs: run `dllm2rec label` again")
    check_sides(config.model, config.distillation)


def load_data(config: TrainConfig, rank: int = 0, world_size: int = 1) -> TrainingData:
    """Read a worker's slice of the data set and of the labels."""
    items = pq.read_table(config.dataset / ITEMS_FILE, columns=["train_count"])
    length, padding = config.model.max_length, items.num_rows
    rows = read_rows(config.dataset, "train", length, padding, rank, world_size)
    prepared, embeddings, teacher_ndcg = read_manifest(config.dataset), None, {}
    if config.labels is not None:
        teacher_ndcg = _validation_ndcg(read_manifest(config.labels, "label"))
        rows = rows.take(torch.isin(rows.row_id, failed_rows(config.labels, "train"), invert=True))
        rows.teacher = read_labels(rows.row_id, config.labels, "train", config.distillation.top_k)
        if (config.labels / EMBEDDINGS_FILE).is_file():
            embeddings = load_file(config.labels / EMBEDDINGS_FILE)[EMBEDDINGS_TENSOR]
    return TrainingData(
        train=rows,
        validation=read_rows(config.dataset, "validation", length, padding, rank, world_size),
        train_count=torch.from_numpy(items["train_count"].to_numpy().copy()),
        teacher_embeddings=embeddings,
        teacher_ndcg=teacher_ndcg,
        yardstick=yardsticks(prepared.metrics, "validation")["transitions"],
        rank=rank,
        world_size=world_size,
        total_rows=prepared.counts["train"],
    )


def _validation_ndcg(labels: Manifest) -> dict[str, float]:
    """``ndcg@K`` of the teacher on validation rows, if these are labelled."""
    prefix = "validation_"
    return {name.removeprefix(prefix): v for name, v in labels.metrics.items() if name.startswith(f"{prefix}ndcg@")}


def say_if_unjudged(config: TrainConfig) -> None:
    """Say once that the teacher cannot be compared with the student, which is evaluated on validation rows."""
    if config.labels is None or not config.distillation.teacher_threshold:
        return
    if not _validation_ndcg(read_manifest(config.labels, "label")):
        say(
            f"{config.labels} holds no labels of validation rows: the teacher is followed in full, as with "
            "--distillation.teacher-threshold 0"
        )


def train_worker(payload: Payload) -> None:
    """One Ray Train worker: train, evaluate on test once, report the student as the last checkpoint."""
    config = TrainConfig.model_validate(payload["config"])
    context = ray_train.get_context()
    data = load_data(config, context.get_world_rank(), context.get_world_size())

    def on_evaluation(state: TrainerState, save: Callable[[Path], None]) -> bool:
        if data.rank == 0:
            report(config.output.name, state.epoch, config.epochs, "epochs", progress_text(state))
            if payload["live"]:
                payload["live"].say(state.history[-1])
        if config.max_failures:
            with tempfile.TemporaryDirectory() as directory:
                save(Path(directory))
                ray_train.report({"epoch": state.epoch}, checkpoint=Checkpoint.from_directory(directory))
        return True

    with last_checkpoint() as checkpoint:
        if checkpoint and (checkpoint / RESULT_FILE).is_file():  # stopped after the end, before the student was taken
            _report(checkpoint, data.rank)
            return
        start = Path(payload["start_from"]) if payload["start_from"] else None
        student, state = fit(config, data, on_evaluation, checkpoint or start)
    if data.rank == 0 and state.epoch < config.epochs:
        report(config.output.name, state.epoch, config.epochs, "epochs", progress_text(state), finished=True)
    outcome = measure(config, data, student, state)
    ranks = validation_ranks(config, data, student)
    with tempfile.TemporaryDirectory() as directory:
        if data.rank == 0:
            write_student(Path(directory), config, student, state, outcome, ranks)
        _report(Path(directory), data.rank)


def _report(student: Path, rank: int) -> None:
    ray_train.report({"done": True}, checkpoint=Checkpoint.from_directory(student) if rank == 0 else None)
