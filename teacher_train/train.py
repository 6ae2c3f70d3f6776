"""The verb ``train-teacher``: an LLM learns to name the next title of a history (Ray Train, DeepSpeed)."""

from collections.abc import Mapping
from pathlib import Path

from cluster.checkpoints import checkpoint_storage
from cluster.console import say
from cluster.identity import digest
from cluster.lean_import import lean_import
from cluster.probe import probed
from cluster.ray_session import ray_session
from cluster.storage import check_free, fingerprint, output_directory, read_manifest
from cluster.workers import Payload, run_workers
from teacher_infer.prompts import fingerprint as prompt_fingerprint
from teacher_train.check import check_model
from teacher_train.config import LOSS, TrainTeacherConfig

VERB = "train-teacher"


def train_teacher(config: TrainTeacherConfig) -> Path:
    """Train a teacher and write it as an HF directory that vLLM and transformers load.

    Raises:
        ConfigError: the model's shape cannot be served, or the cluster is too small.
        StaleInputError: the data set or the model to start from is absent or unfinished.
        ModelError: the model to start from cannot be read.
        OutputError: the output directory holds something else.

    An unmerged LoRA teacher has its adapters in the folder ``adapter`` and no weights of its own.
    """
    check_free(config.output, VERB, config.overwrite)
    check_model(config)
    dataset = read_manifest(config.dataset, "prepare")
    inputs = {"dataset": dataset.fingerprint, "prompt": prompt_fingerprint()}
    if config.start_from:
        inputs["start_from"] = fingerprint(config.start_from)
    with (
        output_directory(config.output, verb=VERB, config=config, inputs=inputs, overwrite=config.overwrite) as draft,
        ray_session(config.cluster),
        probed(config.output, {"dataset": config.dataset, "start-from": config.start_from}, config.resources) as probe,
    ):
        last = run_workers(
            _worker,
            {"config": config},
            config.resources,
            name=f"{VERB}-{digest(config, inputs)}",
            storage=checkpoint_storage(config.storage, config.output),
            max_failures=config.max_failures,
            output=draft.path,
            probe=probe,
            keep_lowest=LOSS,
        )
        draft.counts |= last["counts"]
        draft.metrics |= last["metrics"]
    say(f"teacher in {config.output}: {verdict(draft.metrics)}")
    return config.output


def verdict(metrics: Mapping[str, float]) -> str:
    """The validation loss, and what to do if the teacher has learned nothing: it diverged, or hardly began."""
    loss, guessing = metrics["validation_loss"], metrics["guessing_loss"]
    found = f"validation loss {loss:.4f}"
    if loss < guessing:
        return found
    return (
        f"{found}, no better than guessing by how often each token comes ({guessing:.4f}): the training diverged or "
        "hardly began; lower --learning-rate, or raise --epochs, before you label with it"
    )


def _worker(payload: Payload) -> None:
    # Peft and the Trainer take seconds to import, which the driver need not wait for.
    with lean_import("mlflow", "sklearn"):
        from teacher_train.loop import train_loop
    train_loop(payload)
