"""The verb ``train``: a student on Ray Train workers, each with a DeepSpeed engine and its own shards."""

import json
from pathlib import Path

from cluster.console import say
from cluster.errors import ConfigError, StaleInputError
from cluster.files import written_directory
from cluster.live import Live
from cluster.probe import probed
from cluster.ray_session import fits_here, ray_session
from cluster.storage import Manifest, check_free, check_made_from, fingerprint, output_directory, read_manifest
from cluster.unfinished import Unfinished
from cluster.workers import run_workers
from data_prep.schema import EMBEDDINGS_FILE
from data_prep.yardsticks import best_yardstick, yardsticks
from student_train.config import DistillationConfig, TrainConfig
from student_train.distillation import feature_based
from student_train.distilled_student import check_sides
from student_train.evaluation import protocol
from student_train.loop import steps_per_epoch
from student_train.outcome import RESULT_FILE
from student_train.worker import train_here, train_worker, validation_ndcg


def train(config: TrainConfig, start_from: Path | None = None, in_process: bool | None = None) -> Path:
    """Train a student, evaluate it once on test, and write its directory.

    Args:
        config: what to train and how.
        start_from: checkpoint of a training of one worker to resume from, as searches leave them.
        in_process: whether the one worker is this process, without Ray; by default where that is all that it needs
            (:func:`cluster.ray_session.fits_here`).

    Raises:
        StaleInputError: data set or labels are missing, unfinished, or do not belong together.
        ConfigError: a setting does not fit the data or the cluster.
    """
    check_free(config.output, "train", config.overwrite)
    inputs = check_inputs(config)
    say_if_unjudged(config)
    if in_process is None:
        in_process = fits_here(config.cluster, config.resources, config.max_failures)
    if not (config.track or config.register_as):
        return _train(config, inputs, start_from, None, in_process)
    from student_train.tracked import tracked

    return tracked(config, inputs, lambda live: _train(config, inputs, start_from, live, in_process), in_process)


def _train(config: TrainConfig, inputs: dict[str, str], start_from: Path | None, live: Live | None, here: bool) -> Path:
    prepared = read_manifest(config.dataset, "prepare")
    unfinished = Unfinished.of("train", config, inputs | _started(start_from), config.storage, config.output)
    unfinished.check_place(config.output, config.overwrite)
    payload = {
        "config": config.model_dump(mode="json"),
        "start_from": str(start_from) if start_from else None,
        "unfinished": unfinished,
        "live": live,
    }
    with output_directory(
        config.output, verb="train", config=config, inputs=inputs, overwrite=config.overwrite
    ) as draft:
        if here:
            with written_directory(draft.path) as directory:
                train_here(payload, directory)
        else:
            paths = {"dataset": config.dataset, "labels": config.labels, "start-from": start_from}
            with ray_session(config.cluster), probed(config.output, paths, config.resources) as probe:
                run_workers(
                    train_worker,
                    payload,
                    config.resources,
                    name=unfinished.name,
                    storage=unfinished.storage,
                    max_failures=config.max_failures,
                    output=draft.path,
                    probe=probe,
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
        ConfigError: ``distillation.top_k`` is larger than the stored lists, or ``model.max_length`` than the histories.
        TrainingError: an epoch has not enough batches for one update.
    """
    dataset = read_manifest(config.dataset, "prepare")
    if not yardsticks(dataset.metrics, "validation"):
        raise StaleInputError(
            f"{config.dataset} was made by an earlier version, without yardsticks: run `prepare` again"
        )
    check_length(config, dataset)
    steps_per_epoch(config, dataset.counts["train"], config.resources.workers)
    inputs = {"dataset": dataset.fingerprint}
    if config.labels is None:
        return inputs
    labels = read_manifest(config.labels, "label")
    check_made_from(config.labels, labels, "dataset", config.dataset, dataset)
    _check_labels(config, labels)
    return inputs | {"labels": labels.fingerprint, "teacher": labels.inputs["teacher"]}


def check_length(config: TrainConfig, dataset: Manifest) -> None:
    """Refuse a student that is longer than any history: its oldest positions would stay as they were drawn.

    Raises:
        ConfigError: see above.
    """
    kept, length = dataset.config.get("max_history"), config.model.max_length
    if kept and length > kept:
        raise ConfigError(
            f"`model.max_length` = {length}, but {config.dataset} keeps {kept} items of a history: lower it or run "
            f"`dllm2rec prepare --max-history {length}`"
        )


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
    if labels.config.get("limit"):
        raise StaleInputError(
            f"{config.labels} holds labels of {labels.config['limit']} rows of each split: run the same "
            "`dllm2rec label` without --limit"
        )
    if "train" not in labels.config["splits"]:
        raise StaleInputError(f"{config.labels} holds no labels of train rows: run `dllm2rec label --splits train …`")
    embeddings, needed = config.labels / EMBEDDINGS_FILE, _needs_embeddings(config.distillation)
    if needed and not embeddings.is_file():
        raise StaleInputError(f"{embeddings} is missing, which {needed} needs: run `dllm2rec label` again")
    check_sides(config.model, config.distillation)


def say_if_unjudged(config: TrainConfig) -> None:
    """Say once that the teacher cannot be compared with the student, which is evaluated on validation rows."""
    if config.labels is None or not config.distillation.teacher_threshold:
        return
    if not validation_ndcg(read_manifest(config.labels, "label")):
        say(
            f"{config.labels} holds no labels of validation rows: the teacher is followed in full, as with "
            "--distillation.teacher-threshold 0"
        )
