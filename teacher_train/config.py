"""Config of the verb ``train-teacher``."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from cluster.config import ClusterConfig, Config, DeepSpeedConfig, NoEffect, ResourcesConfig
from cluster.paths import AnyPath

LOSS = "eval_loss"  # by which the best weights are chosen, as transformers' Trainer names it


class TeacherModelConfig(Config):
    """A small Llama-architecture model to train from scratch."""

    num_layers: int = Field(2, ge=1, description="Transformer layers.")
    hidden_size: int = Field(256, ge=32, description="Hidden size.")
    num_heads: int = Field(8, ge=1, description="Attention heads; hidden_size / num_heads must be 32 or 64.")
    vocab_size: int = Field(4096, ge=512, description="Largest vocabulary of the byte-level BPE tokenizer.")


class LoraConfig(Config):
    """Low-rank adapters (LoRA) on a frozen model."""

    rank: int = Field(0, ge=0, description="Rank of the adapters; 0 trains all weights.")
    alpha: int = Field(16, ge=1, description="Scale: the adapters' output counts alpha / rank times.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the adapters' input.")
    target_modules: tuple[str, ...] = Field(
        ("all-linear",), min_length=1, description="Modules that get an adapter, by name; all-linear: all but the head."
    )
    merge: bool = Field(True, description="Write the model with the adapters in its weights; else the adapters alone.")


class TrainTeacherConfig(Config):
    """Train a small LLM from scratch, or fine-tune one, to name the next title of a history."""

    dataset: NoEffect[AnyPath] = Field(Path("runs/dataset"), description="Data set directory (verb prepare).")
    start_from: NoEffect[AnyPath | None] = Field(
        None, description="HF causal LM directory to start from; none trains from scratch."
    )
    model: TeacherModelConfig = TeacherModelConfig()
    lora: LoraConfig = LoraConfig()
    learn_from: Literal["response", "titles"] = Field(
        "response", description="Tokens with a loss: the response only, or the titles of the history as well."
    )
    max_rows: int | None = Field(None, ge=1, description="Train rows drawn at random; none takes all.")
    validation_rows: int = Field(1000, ge=1, description="Validation rows drawn at random for each evaluation.")
    max_tokens: int = Field(512, ge=64, description="Longest prompt with response, tokens; oldest titles go first.")
    packing: bool = Field(False, description="Several rows per sequence of max_tokens; none attends to another.")
    attention: Literal["varlen", "eager"] = Field(
        "varlen", description="varlen attends row by row; eager, under a mask, fits architectures that varlen refuses."
    )
    gradient_checkpointing: bool = Field(False, description="Compute activations twice instead of keeping them.")
    epochs: int = Field(10, ge=1, description="Passes over the rows.")
    micro_batch: int = Field(32, ge=1, description="Sequences (rows, unless packed) per worker and forward pass.")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Highest learning rate; warm-up, then cosine to 0.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps that warm up.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay.")
    evaluations: int = Field(1, ge=1, description="Evaluations on validation rows per epoch.")
    patience: int = Field(3, ge=1, description="Evaluations without gain before stopping.")
    seed: int = Field(0, ge=0, description="Seed of weights, rows and order.")
    save_precision: Literal["fp32", "bf16"] | None = Field(
        None, description="Number format of the weights that are written; none: as they were trained."
    )
    resume: NoEffect[bool] = Field(
        True, description="Keep the state of the training at every evaluation: the same command resumes after a stop."
    )
    save_steps: NoEffect[int | None] = Field(
        None, ge=1, description="Optimizer steps between two states kept; none keeps one per evaluation."
    )
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    resources: ResourcesConfig = ResourcesConfig()
    max_failures: NoEffect[int] = Field(0, ge=0, description="Restarts from the last checkpoint after a worker dies.")
    storage: NoEffect[str | None] = Field(
        None, description="Directory or URI that all machines reach, for checkpoints; none: beside the output."
    )
    output: NoEffect[AnyPath] = Field(Path("runs/teacher"), description="Teacher directory to write (HF format).")
    overwrite: NoEffect[bool] = Field(False, description="Replace an earlier teacher in the output directory.")
    cluster: NoEffect[ClusterConfig] = ClusterConfig()

    @property
    def keeps_state(self) -> bool:
        """Whether checkpoints hold what a restart needs; else weights only."""
        return self.resume or self.max_failures > 0
