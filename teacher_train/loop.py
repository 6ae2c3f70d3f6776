"""What every training worker does: its slice of the rows, steps, evaluations, the best weights on rank 0."""

import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from ray import train
from torch import Tensor

from cluster.engine import Engine
from cluster.errors import ConfigError, DataError
from cluster.workers import Payload, last_checkpoint
from data_prep.reading import read_titles
from data_prep.schema import Split
from teacher_train.config import TrainTeacherConfig
from teacher_train.examples import IGNORED, Batch, Example, Slice, batches, encode, read_slice
from teacher_train.model import ResponseLoss, open_model, write_start, write_weights
from teacher_train.progress import Progress

LOG_SECONDS = 10.0
BEST = "best"


def train_loop(payload: Payload) -> None:
    """Entry point of a training worker; rank 0 reports the teacher's directory."""
    with tempfile.TemporaryDirectory() as best:
        training = Training(payload["config"], Path(best))
        training.run()
        training.progress.leave(Path(best))
        finished = train.Checkpoint.from_directory(best) if training.rank == 0 else None
        train.report(training.progress.metrics(), checkpoint=finished)


class Training:
    """One worker's part of a training; ``best`` is its own directory for the teacher."""

    def __init__(self, config: TrainTeacherConfig, best: Path) -> None:
        context = train.get_context()
        self.config, self.best = config, best
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.progress = Progress()
        self.tokenizer = write_start(config, best)
        self.rows, self.validation = self._examples()
        torch.manual_seed(config.seed)
        lm = open_model(config.start_from, best)
        optimizer = torch.optim.AdamW(lm.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.engine = Engine(ResponseLoss(lm), optimizer, config.engine, config.micro_batch)
        self.per_epoch = math.ceil(len(self.rows) / config.micro_batch)
        self.steps = self.per_epoch * config.epochs
        self.losses: list[Tensor] = []  # since the last evaluation
        self.logged = time.perf_counter()
        self._resume()

    def run(self) -> None:
        """Train until the last step or until patience ends."""
        every = max(1, self.per_epoch // self.config.evaluations)
        first, done = divmod(self.progress.step, self.per_epoch)
        for epoch in range(first, self.config.epochs):
            for at, batch in enumerate(self._batches(self.rows, self.config.seed + epoch), start=1):
                if epoch == first and at <= done:
                    continue
                self._step(batch)
                if at % every == 0 or at == self.per_epoch:
                    self._evaluate()
                    if self.progress.without_gain >= self.config.patience:
                        return

    def _examples(self) -> tuple[list[Example], list[Example]]:
        titles, config = read_titles(self.config.dataset), self.config

        def read(split: Split, rows: int | None, learn_from: str) -> list[Example]:
            table = read_slice(config.dataset, split, Slice(self.rank, self.world, rows, config.seed))
            if not len(table):
                raise DataError(f"{config.dataset} has fewer {split} rows than {self.world} workers: lower --workers")
            encoded = encode(table, titles, self.tokenizer, config.max_tokens, learn_from)
            self.progress.dropped_history_titles += encoded.dropped
            return encoded.examples

        rows = read("train", config.max_rows, config.learn_from)
        self.progress.rows = len(rows) * self.world
        return rows, read("validation", config.validation_rows, "response")

    def _step(self, batch: Batch) -> None:
        start = time.perf_counter()
        rate = self.config.learning_rate * schedule(self.progress.step, self.steps, self.config.warmup)
        self.engine.set_learning_rate(rate)
        loss = self.engine(*batch)
        if not torch.isfinite(loss):
            raise ConfigError(f"the loss is {loss.item()} at step {self.progress.step}: lower --learning-rate")
        self.engine.backward(loss)
        self.engine.step()
        self.losses.append(loss.detach())
        self.progress.step += 1
        self.progress.tokens += int(batch.mask.sum()) * self.world
        self.progress.seconds += time.perf_counter() - start
        if time.perf_counter() - self.logged > LOG_SECONDS:
            self._print(f"loss {loss.item():.4f}")

    def _evaluate(self) -> None:
        loss = self._validation_loss()
        train_loss = self.engine.mean(torch.stack(self.losses).mean()).item()
        self.losses = []
        better = self.progress.evaluated(train_loss, loss)
        self._print(f"train loss {train_loss:.4f}, validation loss {loss:.4f}{' (best)' if better else ''}")
        if better:
            weights = self.engine.state_dict()
            if self.rank == 0:
                write_weights(self.engine.module.lm, weights, self.best)
        if self.config.workers.max_failures:
            self._checkpoint()

    def _validation_loss(self) -> float:
        """Mean over all labelled tokens of all ranks' validation rows, whatever the batches."""
        module = self.engine.module.eval()
        total = torch.zeros(2, dtype=torch.float64)
        with torch.inference_mode():
            for batch in self._batches(self.validation, None):
                tokens = int((batch.labels != IGNORED).sum())
                total += torch.tensor([self.engine(*batch).item() * tokens, tokens], dtype=torch.float64)
        module.train()
        loss, tokens = self.engine.mean(total.to(self.engine.device)).tolist()
        return loss / tokens

    def _checkpoint(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            self.engine.save(Path(directory), self.progress.state())
            if self.rank == 0:
                shutil.copytree(self.best, Path(directory) / BEST)
            train.report(self.progress.metrics(), checkpoint=train.Checkpoint.from_directory(directory))

    def _resume(self) -> None:
        checkpoint = last_checkpoint()
        if checkpoint is None:
            return
        state = self.engine.load(checkpoint)
        self.progress = Progress(**{name: state[name] for name in self.progress.state()})
        shutil.copytree(checkpoint / BEST, self.best, dirs_exist_ok=True)

    def _batches(self, examples: list[Example], seed: int | None) -> Iterator[Batch]:
        for batch in batches(examples, self.config.micro_batch, self.tokenizer.pad_token_id, seed):
            yield Batch(*(part.to(self.engine.device) for part in batch))

    def _print(self, what: str) -> None:
        self.logged = time.perf_counter()
        if self.rank == 0:
            at = self.progress
            left = (self.steps - at.step) * at.seconds / at.step
            print(f"step {at.step}/{self.steps}: {what}, {at.speed:,.0f} tokens/s, {left:.0f} s left", flush=True)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate at a step: linear warm-up, then cosine down to 0."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
