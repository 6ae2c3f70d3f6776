"""What every training worker does: its slice of the rows, steps, evaluations, the best weights on rank 0."""

import math
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from ray import train
from transformers import AutoTokenizer

from cluster.engine import Engine
from cluster.errors import ConfigError, DataError
from cluster.workers import Payload, last_checkpoint
from data_prep.reading import read_titles
from data_prep.schema import Split
from teacher_train.config import TrainTeacherConfig
from teacher_train.examples import Batch, Encoded, Slice, batches, encode, read_slice
from teacher_train.model import ResponseLoss, open_model

LOG_SECONDS = 10.0


@dataclass
class Progress:
    """Where a training stands; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = math.inf
    train_loss: float = math.nan  # mean since the evaluation before
    without_gain: int = 0


@dataclass
class Window:
    """Loss since the last evaluation, and when a progress line was last printed."""

    losses: list[torch.Tensor] = field(default_factory=list)
    logged: float = field(default_factory=time.perf_counter)


class Training:
    """One worker's part of a training."""

    def __init__(self, config: TrainTeacherConfig, output: Path) -> None:
        context = train.get_context()
        self.config, self.output = config, output
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.tokenizer = AutoTokenizer.from_pretrained(output)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        titles = read_titles(config.dataset)
        self.rows = self._encode("train", config.max_rows, titles)
        self.validation = self._encode("validation", config.validation_rows, titles)
        torch.manual_seed(config.seed)
        self.lm = open_model(config.start_from, output)
        optimizer = torch.optim.AdamW(self.lm.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        self.engine = Engine(ResponseLoss(self.lm), optimizer, config.engine, config.micro_batch)
        self.per_epoch = math.ceil(len(self.rows.examples) / config.micro_batch)
        self.steps = self.per_epoch * config.epochs
        self.progress, self.window = self._resumed(), Window()

    def epochs(self) -> None:
        """Train until the last step or until patience ends."""
        every = max(1, self.per_epoch // self.config.evaluations)
        for epoch in range(self.progress.step // self.per_epoch, self.config.epochs):
            done = self.progress.step - epoch * self.per_epoch
            for at, batch in enumerate(self._batches(self.rows, self.config.seed + epoch)):
                if at < done:
                    continue
                self._step(batch)
                if (at + 1) % every == 0 or at + 1 == self.per_epoch:
                    self._evaluate()
                    if self.progress.without_gain >= self.config.patience:
                        return

    def _step(self, batch: Batch) -> None:
        start = time.perf_counter()
        self.engine.set_learning_rate(
            self.config.learning_rate * schedule(self.progress.step, self.steps, self.config.warmup)
        )
        loss = self.engine(*batch)
        if not torch.isfinite(loss):
            raise ConfigError(f"the loss is {loss.item()} at step {self.progress.step}: lower --learning-rate")
        self.engine.backward(loss)
        self.engine.step()
        self.progress.step += 1
        self.progress.tokens += int(batch.mask.sum()) * self.world
        self.progress.seconds += time.perf_counter() - start
        self.window.losses.append(loss.detach())
        if self.rank == 0 and time.perf_counter() - self.window.logged > LOG_SECONDS:
            self._print(f"loss {loss.item():.4f}")

    @torch.inference_mode()
    def _evaluate(self) -> None:
        self.engine.module.eval()
        losses = [self.engine(*batch) for batch in self._batches(self.validation, None)]
        self.engine.module.train()
        loss = self.engine.mean(torch.stack(losses).mean()).item()
        self.progress.train_loss = self.engine.mean(torch.stack(self.window.losses).mean()).item()
        better = loss < self.progress.best
        self.progress.without_gain = 0 if better else self.progress.without_gain + 1
        self.progress.best = min(loss, self.progress.best)
        if better:
            self._write_weights()
        if self.rank == 0:
            self._print(
                f"train loss {self.progress.train_loss:.4f}, validation loss {loss:.4f}{' *' if better else ''}"
            )
        self.window = Window()
        self._report()

    def _write_weights(self) -> None:
        state = {name.removeprefix("lm."): value for name, value in self.engine.state_dict().items()}
        if self.rank == 0:
            best = open_model(None, self.output)
            best.load_state_dict({name: state[name] for name in best.state_dict() if name in state}, strict=False)
            best.save_pretrained(self.output)

    def _report(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            self.engine.save(Path(directory), asdict(self.progress))
            train.report(self._metrics(), checkpoint=train.Checkpoint.from_directory(directory))

    def _metrics(self) -> dict[str, Any]:
        return {
            "validation_loss": self.progress.best,
            "train_loss": self.progress.train_loss,
            "tokens_per_second": self.progress.tokens / self.progress.seconds,
            "seconds": self.progress.seconds,
            "steps": self.progress.step,
            "tokens": self.progress.tokens,
            "rows": len(self.rows.examples) * self.world,
            "dropped_history_titles": self.rows.dropped,
        }

    def _resumed(self) -> Progress:
        checkpoint = last_checkpoint()
        if checkpoint is None:
            return Progress()
        state = self.engine.load(checkpoint)
        return Progress(**{name: state[name] for name in asdict(Progress())})

    def _encode(self, split: Split, rows: int | None, titles: list[str]) -> Encoded:
        table = read_slice(self.config.dataset, split, Slice(self.rank, self.world, rows, self.config.seed))
        if not len(table):
            raise DataError(f"{self.config.dataset}: fewer {split} rows than the {self.world} training workers")
        return encode(table, titles, self.tokenizer, self.config.max_tokens, self.config.learn_from)

    def _batches(self, encoded: Encoded, seed: int | None) -> Any:  # noqa: ANN401  # an iterator of Batch
        for batch in batches(encoded.examples, self.config.micro_batch, self.tokenizer.pad_token_id, seed):
            yield Batch(*(part.to(self.engine.device) for part in batch))

    def _print(self, what: str) -> None:
        at, speed = self.progress, self.progress.tokens / self.progress.seconds
        left = (self.steps - at.step) * at.seconds / at.step
        print(f"step {at.step}/{self.steps}: {what}, {speed:,.0f} tokens/s, {left:.0f} s left", flush=True)
        self.window.logged = time.perf_counter()


def train_loop(payload: Payload) -> None:
    """Entry point of a training worker."""
    Training(payload["config"], payload["output"]).epochs()


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate at a step: linear warm-up, then cosine down to 0."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
