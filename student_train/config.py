"""Config of the ``train`` verb."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, model_validator

from cluster.config import ClusterConfig, Config, DeepSpeedConfig, ModelName, NoEffect, ResourcesConfig, TrackingConfig
from cluster.dotted_path import one_of
from cluster.paths import AnyPath
from student_train.components import BACKBONES, LOSSES, STRATEGIES


class ModelConfig(Config):
    """The student's architecture and size."""

    name: Annotated[str, one_of(BACKBONES), tyro.conf.arg(aliases=["--model"])] = Field(
        "sasrec",
        description=f"Architecture: {', '.join(BACKBONES)} (dros is SASRec with the DRO term), or a backbone of your "
        "own by dotted path (my_package.models:Mine).",
    )
    hidden_size: int = Field(64, ge=4, description="Width D of item embeddings and states.")
    num_layers: int = Field(1, ge=1, description="GRU layers or self-attention blocks.")
    num_heads: int = Field(2, ge=1, description="Attention heads (SASRec, HSTU); must divide the hidden size.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout on embeddings and inside blocks.")
    max_length: int = Field(10, ge=1, description="Newest history items used, L.")
    output: Literal["tied", "separate"] = Field("tied", description="Whether input and output share one item table.")

    @model_validator(mode="after")
    def _heads_fit(self) -> "ModelConfig":
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide hidden_size {self.hidden_size}")
        return self


class LossConfig(Config):
    """The student's own loss."""

    name: Annotated[str, one_of(LOSSES), tyro.conf.arg(aliases=["--loss"])] = Field(
        "softmax",
        description=f"Loss: {', '.join(LOSSES)} (the sampled softmax has a logQ correction), or one of your own by "
        "dotted path.",
    )
    negatives: int = Field(1, ge=1, description="Sampled negatives per row (all but the full softmax).")
    gbce_calibration: float = Field(0.75, ge=0, le=1, description="Calibration t of gBCE; 0 makes it BCE.")
    dro_weight: float | None = Field(
        None, ge=0, description="Alpha of the DRO term; by default 0.1 for the model dros and 0 for the others."
    )
    dro_beta: float = Field(1.0, gt=0, description="Beta of the DRO term.")


Side = Literal["both", "input", "output", "none"]


class DistillationConfig(Config):
    """What the student takes from the teacher; used when labels are given."""

    strategy: Annotated[str, one_of(STRATEGIES)] = Field(
        "soft",
        description=f"How the student learns from the teacher's labels: {', '.join(STRATEGIES)}, or one of your own by "
        "dotted path.",
    )
    lam: float = Field(0.6, ge=0, description="Lambda, weight of the strategy's loss; 0 switches it off.")
    teacher_threshold: float = Field(
        0.5,
        ge=0,
        description="Share of the validation NDCG@20 without it (the better of item transitions and the student's "
        "best) that the teacher must reach to be followed in full; below it lam, ed_weight and cloze fall with the "
        "square. 0 always follows in full.",
    )
    top_k: int = Field(20, ge=1, description="Length K of the teacher list used.")
    gamma_position: float = Field(0.3, ge=0, description="Weight of the position importance (dllm2rec).")
    gamma_confidence: float = Field(0.5, ge=0, description="Weight of the teacher's confidence (dllm2rec).")
    gamma_consistency: float = Field(0.1, ge=0, description="Weight of the student-teacher agreement (dllm2rec).")
    beta: float = Field(1.0, gt=0, description="Decay of the position importance, in ranks (dllm2rec, rd).")
    temperature: float = Field(0.4, gt=0, description="Temperature of the teacher's scores, in standard deviations.")
    weigh_rows: bool = Field(
        False, description="Weigh rows by how much better the teacher ranks the true item than the student does (soft)."
    )
    embedding: Side = Field("both", description="Side of the item table that the projected teacher embeddings join.")
    ed_weight: float = Field(1.8, ge=0, description="Weight of the projected teacher embeddings; 0 switches them off.")
    projector: Literal["linear", "mlp"] = Field("linear", description="Maps teacher embeddings to the student's width.")
    projector_start: Literal["random", "pca"] = Field(
        "pca", description="Start of a linear projector: random, or the principal components of the embeddings."
    )
    freeze_projector: bool = Field(False, description="Keep the projector as it starts.")
    offset: bool = Field(True, description="Learn an embedding per item beside the projected one.")
    cloze: float = Field(
        0.15,
        ge=0,
        description="Weight of predicting a random item of the history from the others and the target (the Cloze task "
        "of BERT4Rec), which shows the projector more pairs of items; off without embeddings.",
    )

    @property
    def uses_teacher_embeddings(self) -> bool:
        """Whether projected teacher embeddings join the item table."""
        return self.embedding != "none" and self.ed_weight > 0


class TrainConfig(Config):
    """Train a student on a prepared data set, distilled from a teacher's labels if they are given."""

    dataset: NoEffect[AnyPath] = Field(Path("runs/dataset"), description="Data set directory (verb prepare).")
    labels: NoEffect[AnyPath | None] = Field(
        None, description="Label directory (verb label); none trains the plain student."
    )
    output: NoEffect[AnyPath] = Field(Path("runs/student"), description="Student directory to write.")
    overwrite: NoEffect[bool] = Field(False, description="Replace an earlier student in the output directory.")
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    distillation: DistillationConfig = DistillationConfig()
    learning_rate: float = Field(3e-3, gt=0, description="Learning rate of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    weight_average: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the steps so far over which the evaluated and exported weights are averaged; 0 takes the "
        "last ones.",
    )
    batch_size: int = Field(256, ge=1, description="Rows per worker and step (micro batch).")
    epochs: int = Field(100, ge=1, description="Most epochs.")
    evaluate_every: int = Field(1, ge=1, description="Epochs between evaluations on validation.")
    patience: int = Field(10, ge=1, description="Evaluations without gain in validation NDCG@20 before stopping.")
    metrics: tuple[str, ...] = Field(
        (),
        description="Metrics of your own beside HR, NDCG and MRR: dotted paths of functions of ranks [B].",
    )
    filter_history: bool = Field(
        False,
        description="Leave history items out of the ranking when evaluating; yardsticks are not filtered.",
    )
    seed: int = Field(0, ge=0, description="Seed of weights, batches and negatives.")
    register_as: NoEffect[ModelName | None] = Field(
        None, description="Name to register the student under in MLflow; none does not."
    )
    track: NoEffect[bool] = Field(
        False,
        description="Record the training as an MLflow run, with the metrics of every epoch; register_as does too.",
    )
    max_failures: NoEffect[int] = Field(0, ge=0, description="Restarts from the last checkpoint after a worker dies.")
    storage: NoEffect[str | None] = Field(
        None,
        description="Directory or URI that all machines reach, for checkpoints; none: beside the output.",
    )
    checkpoint_seconds: NoEffect[float] = Field(
        60,
        ge=0,
        description="Seconds between two checkpoints: the same command resumes a stopped training from the last one.",
    )
    resources: ResourcesConfig = ResourcesConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    cluster: NoEffect[ClusterConfig] = ClusterConfig()
    tracking: NoEffect[TrackingConfig] = TrackingConfig()


def value_at(config: TrainConfig, path: str) -> Any:  # noqa: ANN401  # any field
    """The value that stands at a path (``model.hidden_size``)."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def dro_weight(config: TrainConfig) -> float:
    """Alpha of the DRO term, which the model dros has by default."""
    if config.loss.dro_weight is not None:
        return config.loss.dro_weight
    return 0.1 if config.model.name == "dros" else 0.0
