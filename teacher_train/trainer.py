"""transformers' Trainer under Ray Train: each rank's own rows, a loss per token, checkpoints kept by Ray."""

import math
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from ray import train
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from cluster.console import report
from cluster.engine import deepspeed_settings
from cluster.errors import ConfigError
from teacher_train.config import LOSS, TrainTeacherConfig
from teacher_train.examples import Example, collate

REPORT_SECONDS = 1.0
SECONDS = "train_seconds"
NOT_EVALUATED = sys.float_info.max  # Ray Train keeps reports as JSON, which has no infinity
Groups = Sequence[Sequence[Example]]


def training_arguments(config: TrainTeacherConfig, directory: Path, sequences: int) -> TrainingArguments:
    """Settings of the Trainer for ``sequences`` per rank and epoch; ``directory`` holds a checkpoint until it is sent.

    At ZeRO stage 3, models that are made while these exist are partitioned from the start.
    """
    deepspeed = config.deepspeed
    steps = -(-sequences // (config.micro_batch * deepspeed.gradient_accumulation))
    evaluate_every = max(1, steps // config.evaluations)
    return TrainingArguments(
        output_dir=str(directory),
        deepspeed=deepspeed_settings(deepspeed, config.micro_batch),
        use_cpu=not torch.cuda.is_available(),
        bf16=deepspeed.precision == "bf16",
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=deepspeed.gradient_accumulation,
        gradient_checkpointing=config.gradient_checkpointing,
        max_grad_norm=deepspeed.gradient_clip,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=int(steps * config.epochs * config.warmup),
        weight_decay=config.weight_decay,
        seed=config.seed,
        eval_strategy="steps",
        eval_steps=evaluate_every,
        logging_steps=evaluate_every,
        metric_for_best_model=LOSS,
        greater_is_better=False,
        save_strategy="steps" if config.keeps_state else "best",
        save_steps=config.save_steps or evaluate_every,
        save_only_model=not config.keeps_state,
        restore_callback_states_from_checkpoint=True,
        include_num_input_tokens_seen="all",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        use_cache=True,  # what the model's config says; batches ask for none
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )


class TeacherTrainer(Trainer):
    """Trains on this rank's sequences, each a group of examples."""

    control: TrainerControl

    def __init__(
        self, config: TrainTeacherConfig, args: TrainingArguments, lm: nn.Module, rows: Groups, validation: Groups
    ) -> None:
        super().__init__(
            lm,
            args,
            partial(collate, masked=config.attention == "eager"),
            train_dataset=rows,
            eval_dataset=validation,
            callbacks=[EarlyStoppingCallback(config.patience), KeepCheckpoints()],
        )
        self.remove_callback(PrinterCallback)
        self.name = config.output.name
        self.seconds = 0.0  # in steps
        self.reported = time.perf_counter()

    def get_train_dataloader(self) -> DataLoader:
        """This rank's rows in an order drawn by seed and epoch; those of other ranks are not among them."""
        loader = self._loader(self.train_dataset, shuffle=True)
        alone = {"num_processes": 1, "process_index": 0}
        return prepare_data_loader(loader, **alone, use_seedable_sampler=True, data_seed=self.args.seed)

    def _loader(self, groups: Any, shuffle: bool) -> DataLoader:  # noqa: ANN401
        return DataLoader(groups, self.args.per_device_train_batch_size, shuffle, collate_fn=self.data_collator)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Forward and backward pass of a micro batch, and the update that is due after it.

        Raises:
            ConfigError: the loss is not finite.
        """
        start = time.perf_counter()
        loss = super().training_step(*args, **kwargs)
        _check_finite(loss.item(), self.state.global_step)
        self.seconds += time.perf_counter() - start
        if time.perf_counter() - self.reported > REPORT_SECONDS:
            self._report(f"loss {loss.item() * self.current_gradient_accumulation_steps:.4f}")
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:  # noqa: ANN401
        """Mean loss over all labelled tokens of all ranks' validation rows, whatever the batches."""
        self.model_wrapped.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.inference_mode():
            for batch in self._loader(self.eval_dataset, shuffle=False):
                loss = self.compute_loss(self.model_wrapped, self._prepare_inputs(batch)).item()
                total += torch.tensor([loss, 1.0], device=total.device) * batch["labels"].numel()
        loss, tokens = self.accelerator.reduce(total).tolist()
        metrics = {LOSS: loss / tokens}
        _check_finite(metrics[LOSS], self.state.global_step)
        best = self.state.best_metric is None or metrics[LOSS] < self.state.best_metric
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        text = f"train loss {self._train_loss():.4f}, validation loss {metrics[LOSS]:.4f}{' (best)' * best}"
        self._report(text, self.control.should_training_stop)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the time in steps to what is logged, and so to checkpoints."""
        super().log(logs | {SECONDS: self.seconds}, start_time)

    def results(self) -> dict[str, float]:
        """Metrics of the training: losses are means in nats per token, ``train_loss`` since the evaluation before."""
        return {
            "validation_loss": self.state.best_metric,
            "train_loss": self._train_loss(),
            "tokens_per_second": self._speed(),
            SECONDS: self.seconds,
        }

    def _train_loss(self) -> float:
        return next(logs["loss"] for logs in reversed(self.state.log_history) if "loss" in logs)

    def _speed(self) -> float:
        return self.state.num_input_tokens_seen / max(self.seconds, 1e-9)

    def _report(self, text: str, finished: bool = False) -> None:
        self.reported = time.perf_counter()
        if self.is_world_process_zero():
            text = f"{text}, {self._speed():,.0f} tokens/s"
            report(self.name, self.state.global_step, self.state.max_steps, "steps", text, finished)


class KeepCheckpoints(TrainerCallback):
    """Every evaluation is kept: Ray Train gets the Trainer's checkpoints, each rank's part of them."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401
        """Log before an evaluation or a checkpoint, which hold what was logged."""
        control.should_log |= control.should_evaluate or control.should_save

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401
        """Ask for a checkpoint; with ``save_strategy="best"`` the Trainer asks by itself."""
        control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ANN401
        """Send this rank's part of a checkpoint."""
        directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        directory.mkdir(exist_ok=True)
        last = {LOSS: NOT_EVALUATED} | state.log_history[-1]
        train.report(last, checkpoint=train.Checkpoint.from_directory(directory))
        shutil.rmtree(directory)


def _check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise ConfigError(f"the loss is {loss} at step {step}: lower --learning-rate")
