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

from cluster.console import report
from cluster.engine import Engine
from cluster.errors import ConfigError, DataError
from cluster.workers import Payload, last_checkpoint
from data_prep.reading import read_titles
from data_prep.schema import Split
from teacher_train.config import TrainTeacherConfig
from teacher_train.examples import IGNORED, Batch, Example, Slice, batches, encode, read_slice
from teacher_train.lora import add_adapter, merge_adapter, write_adapter
from teacher_train.model import ResponseLoss, checkpoint_activations, open_model, write_start, write_weights
from teacher_train.packing import joined, pack, split_to
from teacher_train.progress import Progress

LOG_SECONDS = 10.0
BEST = "best"


def train_loop(payload: Payload) -> None:
    """Entry point of a training worker; rank 0 reports the teacher's directory."""
    with last_checkpoint() as resumed, tempfile.TemporaryDirectory() as best:
        if resumed and Progress.stands_in(resumed):  # stopped after the end, before the teacher was taken
            _report_teacher(resumed)
            return
        training = Training(payload["config"], Path(best), resumed)
        training.run()
        training.progress.leave(Path(best))
        if training.rank == 0:
            training.finish()
        _report_teacher(Path(best))


def _report_teacher(directory: Path) -> None:
    first = train.get_context().get_world_rank() == 0
    train.report({}, checkpoint=train.Checkpoint.from_directory(directory) if first else None)


class Training:
    """One worker's part of a training; ``best`` is its own directory for the teacher."""

    def __init__(self, config: TrainTeacherConfig, best: Path, resumed: Path | None) -> None:
        context = train.get_context()
        self.config, self.best = config, best
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.progress = Progress()
        self.tokenizer = write_start(config, best)
        self.rows, self.validation = self._examples()
        torch.manual_seed(config.seed)
        self.engine = self._engine()
        if config.packing:
            groups = pack(self.rows, config.max_tokens)
            # Workers step together, so all of them need as many sequences as the one with the most.
            self.rows = [joined(group) for group in split_to(groups, self.engine.largest(len(groups)))]
        self.per_epoch = math.ceil(len(self.rows) / config.micro_batch)
        self.steps = self.per_epoch * config.epochs
        if self.steps < config.deepspeed.gradient_accumulation:
            raise ConfigError(
                f"--deepspeed.gradient-accumulation {config.deepspeed.gradient_accumulation} is more than the "
                f"{self.steps} micro batches of the whole training: lower it"
            )
        self.losses: list[Tensor] = []  # since the last evaluation
        self.logged = time.perf_counter()
        if resumed:
            self._resume(resumed)

    def run(self) -> None:
        """Train until the last step or until patience ends."""
        every = max(1, self.per_epoch // self.config.evaluations)
        due = False
        first, done = divmod(self.progress.step, self.per_epoch)
        for epoch in range(first, self.config.epochs):
            for at, batch in enumerate(self._batches(self.rows, self.config.seed + epoch), start=1):
                if self.progress.without_gain >= self.config.patience:
                    return
                if epoch == first and at <= done:
                    continue
                self._step(batch)
                due = due or at % every == 0 or at == self.per_epoch
                # Between two updates there are gradients that no checkpoint holds.
                updated = self.progress.step % self.config.deepspeed.gradient_accumulation == 0
                if due and (updated or self.progress.step == self.steps):
                    self._evaluate()
                    due = False

    def finish(self) -> None:
        """Leave the best model as it is handed over: adapters in its weights, if they are to be merged."""
        if self.config.lora.rank and self.config.lora.merge:
            merge_adapter(open_model(self.config.start_from, self.best), self.best)

    def _engine(self) -> Engine:
        config = self.config
        lm = open_model(config.start_from, self.best)
        if config.gradient_checkpointing:
            checkpoint_activations(lm)
        if config.lora.rank:
            lm = add_adapter(lm, config.lora)
        trained = [parameter for parameter in lm.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
        return Engine(
            ResponseLoss(lm), optimizer, config.deepspeed, config.micro_batch, keep_frozen=config.lora.rank == 0
        )

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
        # Dropout is drawn by the step, so that a resumed training draws what an undisturbed one does.
        torch.manual_seed((self.config.seed + self.progress.step) * self.world + self.rank)
        loss = self.engine(*batch)
        if not torch.isfinite(loss):
            raise ConfigError(f"the loss is {loss.item()} at step {self.progress.step}: lower --learning-rate")
        self.engine.backward(loss)
        self.engine.step()
        self.losses.append(loss.detach())
        self.progress.step += 1
        self.progress.tokens += int((batch.segments > 0).sum()) * self.world
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
            weights = self.engine.state_dict(here=self.rank == 0)
            weights = {name.removeprefix("lm."): value for name, value in weights.items()}
            if self.rank == 0:
                write = write_adapter if self.config.lora.rank else write_weights
                write(self.engine.module.lm, weights, self.best)
        if self.config.resume or self.config.max_failures:
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

    def _resume(self, checkpoint: Path) -> None:
        state = self.engine.load(checkpoint)
        self.progress = Progress(**{name: state[name] for name in self.progress.state()})
        shutil.copytree(checkpoint / BEST, self.best, dirs_exist_ok=True)
        self.progress.resumed_at = self.progress.step
        self._print("resumed")

    def _batches(self, examples: list[Example], seed: int | None) -> Iterator[Batch]:
        for batch in batches(examples, self.config.micro_batch, self.tokenizer.pad_token_id, seed):
            yield Batch(*(part.to(self.engine.device) for part in batch))

    def _print(self, what: str) -> None:
        self.logged = time.perf_counter()
        if self.rank == 0:
            text = f"{what}, {self.progress.speed:,.0f} tokens/s"
            report(self.config.output.name, self.progress.step, self.steps, "steps", text)


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate at a step: linear warm-up, then cosine down to 0."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
