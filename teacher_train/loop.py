"""What every training worker does: its slice of the rows, the training, the best weights on rank 0."""

import tempfile
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pyarrow.fs import FileSelector, FileType, copy_files
from ray import train
from torch import distributed as dist
from transformers import TrainerState, set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils.logging import disable_progress_bar

from cluster.checkpoints import last_checkpoint
from cluster.engine import load_deepspeed
from cluster.errors import DataError
from cluster.workers import Payload
from data_prep.reading import read_titles
from data_prep.schema import Split
from teacher_train.config import LOSS, TrainTeacherConfig
from teacher_train.examples import IGNORED, Encoded, Example, Slice, encode, read_slice
from teacher_train.model import open_model, open_tokenizer, write_teacher
from teacher_train.packing import pack
from teacher_train.trainer import SECONDS, TeacherTrainer, training_arguments


class Rows(NamedTuple):
    """One rank's sequences, as many on every rank, and how many rows and dropped titles all ranks have."""

    train: list[list[Example]]
    validation: list[list[Example]]
    total: int
    dropped: int
    guessing_loss: float


def train_loop(payload: Payload) -> None:
    """Entry point of a training worker; the last report carries counts, metrics and, from rank 0, the teacher."""
    config: TrainTeacherConfig = payload["config"]
    disable_progress_bar()
    load_deepspeed()
    with last_checkpoint() as found, tempfile.TemporaryDirectory() as checkpoints:
        if found and not (found / TRAINER_STATE_NAME).is_file():
            return  # that is the teacher: the driver stopped before it took it
        tokenizer = open_tokenizer(config)
        rows = read(config, tokenizer)
        args = training_arguments(config, Path(checkpoints), len(rows.train))
        set_seed(config.seed)
        lm = open_model(config, tokenizer)
        trainer = TeacherTrainer(config, args, lm, rows.train, rows.validation)
        resumed_at = run(trainer, found if config.keeps_state else None)
    counts = {
        "rows": rows.total,
        "dropped_history_titles": rows.dropped,
        "steps": trainer.state.global_step,
        "resumed_at_step": resumed_at,
        "tokens": trainer.state.num_input_tokens_seen,
    }
    metrics = trainer.results() | {"guessing_loss": rows.guessing_loss}
    results = {LOSS: trainer.state.best_metric, "counts": counts, "metrics": metrics}
    with tempfile.TemporaryDirectory() as weights, tempfile.TemporaryDirectory() as teacher:
        if args.process_index == 0:
            unset_hf_deepspeed_config()  # a model is opened by this rank alone
            fetch_best(Path(weights))
            write_teacher(config, tokenizer, Path(weights), Path(teacher))
        train.report(results, checkpoint=train.Checkpoint.from_directory(teacher) if args.process_index == 0 else None)


def read(config: TrainTeacherConfig, tokenizer: Any) -> Rows:  # noqa: ANN401  # a PreTrainedTokenizer
    """Read and tokenise this rank's rows.

    Raises:
        DataError: there are fewer rows than workers.
    """
    context, titles = train.get_context(), read_titles(config.dataset)
    rank, world = context.get_world_rank(), context.get_world_size()

    def encoded(split: Split, rows: int | None, learn_from: str) -> Encoded:
        table = read_slice(config.dataset, split, Slice(rank, world, rows, config.seed))
        if not len(table):
            raise DataError(f"{config.dataset} has fewer {split} rows than {world} workers: lower --resources.workers")
        return encode(table, titles, tokenizer, config.max_tokens, learn_from)

    rows = encoded("train", config.max_rows, config.learn_from)
    validation = encoded("validation", config.validation_rows, "response")
    groups = pack(rows.examples, config.max_tokens) if config.packing else [[example] for example in rows.examples]
    of_ranks: list[Any] = [None] * world
    dist.all_gather_object(of_ranks, (len(groups), rows.dropped + validation.dropped))
    sequences, dropped = zip(*of_ranks, strict=True)
    return Rows(
        list(islice(cycle(groups), max(sequences))),  # workers step together: one with fewer repeats a few
        [[example] for example in validation.examples],
        len(rows.examples) * world,
        sum(dropped),
        guessing_loss(validation.examples),
    )


def guessing_loss(examples: list[Example]) -> float:
    """Nats per labelled token of all ranks for who knows how often each token comes, and nothing else."""
    labels = np.concatenate([example["labels"] for example in examples])
    of_ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_ranks, np.unique(labels[labels != IGNORED], return_counts=True))
    counts = Counter[int]()
    for tokens, times in of_ranks:
        counts.update(dict(zip(tokens.tolist(), times.tolist(), strict=True)))
    shares = np.array(list(counts.values())) / counts.total()
    return float(-(shares * np.log(shares)).sum())


def run(trainer: TeacherTrainer, checkpoint: Path | None) -> int:
    """Train until the last step or until patience ends, and return the step that this went on from."""
    if checkpoint is None:
        trainer.train()
        return 0
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    trainer.seconds = state.log_history[-1][SECONDS]
    if state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
        trainer.state = state
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    return state.global_step


def fetch_best(directory: Path) -> None:
    """Copy the model of the best checkpoint; the engine's state lies in folders and stays where it is."""
    best = min(train.get_all_reported_checkpoints(), key=lambda report: report.metrics[LOSS]).checkpoint
    for file in best.filesystem.get_file_info(FileSelector(best.path)):
        if file.type == FileType.File:
            copy_files(file.path, str(directory / file.base_name), source_filesystem=best.filesystem)
