"""Config of the ``train`` verb."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cluster.config import ClusterConfig, Config, EngineConfig, ModelName, TrackingConfig, ResourcesConfig
from student_train.components import BACKBONES, LOSSES, STRATEGIES, one_of

StudentName = Annotated[str, one_of(BACKBONES)]


class ModelConfig(Config):
    """The shape of the student."""

    width: int = Field(64, ge=4, description="Width D of item embeddings and states.")
    layers: int = Field(1, ge=1, description="GRU layers or self-attention blocks.")
    heads: int = Field(2, ge=1, description="Attention heads (SASRec, HSTU); must divide the width.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout on embeddings and inside blocks.")
    history: int = Field(10, ge=1, description="Newest history items used.")
    output: Literal["tied", "separate"] = Field("tied", description="Whether input and output share one item table.")

    @model_validator(mode="after")
    def _heads_fit(self) -> "ModelConfig":
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} must divide width {self.width}")
        return self


class LossConfig(Config):
    """The student's own loss."""

    loss: Annotated[str, one_of(LOSSES)] = Field(
        "softmax", description=f"Loss: {', '.join(LOSSES)}; the sampled softmax has a logQ correction."
    )
    negatives: int = Field(1, ge=1, description="Sampled negatives per row (all but the full softmax).")
    gbce_calibration: float = Field(0.75, ge=0, le=1, description="Calibration t of gBCE; 0 makes it BCE.")
    dro_weight: float | None = Field(
        None, ge=0, description="Alpha of the DRO term; by default 0.1 for the student dros and 0 for the others."
    )
    dro_beta: float = Field(1.0, gt=0, description="Beta of the DRO term.")


Side = Literal["both", "input", "output", "none"]


class DistillationConfig(Config):
    """What the student takes from the teacher; used when labels are given."""

    strategy: Annotated[str, one_of(STRATEGIES)] = Field(
        "soft", description=f"How the student learns from the teacher's labels: {', '.join(STRATEGIES)}."
    )
    lam: float = Field(0.6, ge=0, description="Lambda, weight of the strategy's loss; 0 switches it off.")
    trust: float = Field(
        0.5,
        ge=0,
        description="Share of the student's best validation NDCG@20 that the teacher's own must reach to be followed "
        "in full; below it lam, ed_weight and cloze fall with its square. 0 always follows in full.",
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


def on(weight: float) -> bool:
    """Whether a weight switches its part on; what members that train together hold as a tensor does."""
    return not isinstance(weight, float | int) or weight > 0


class TrainConfig(Config):
    """Train a student on a prepared data set, distilled from a teacher's labels if they are given."""

    dataset: Path = Field(Path("runs/dataset"), description="Data set directory (verb prepare).")
    labels: Path | None = Field(None, description="Label directory (verb label); none trains the plain student.")
    output: Path = Field(Path("runs/student"), description="Student directory to write.")
    overwrite: bool = Field(False, description="Replace an earlier student in the output directory.")
    student: StudentName = Field(
        "sasrec", description=f"Student: {', '.join(BACKBONES)}; dros is SASRec with the DRO term."
    )
    shape: ModelConfig = ModelConfig()
    objective: LossConfig = LossConfig()
    distillation: DistillationConfig = DistillationConfig()
    learning_rate: float = Field(3e-3, gt=0, description="Learning rate of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    average: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the steps so far over which the evaluated and exported weights are averaged; 0 takes the "
        "last ones.",
    )
    batch: int = Field(256, ge=1, description="Rows per worker and step (micro batch).")
    epochs: int = Field(100, ge=1, description="Most epochs.")
    evaluate_every: int = Field(1, ge=1, description="Epochs between evaluations on validation.")
    patience: int = Field(10, ge=1, description="Evaluations without gain in validation NDCG@20 before stopping.")
    filter_history: bool = Field(False, description="Leave history items out of the ranking when evaluating.")
    seed: int = Field(0, ge=0, description="Seed of weights, batches and negatives.")
    register_as: ModelName | None = Field(
        None, description="Name to register the student under in MLflow; none does not."
    )
    track: bool = Field(
        False,
        description="Record the training as an MLflow run, with the metrics of every epoch; register_as does too.",
    )
    workers: ResourcesConfig = ResourcesConfig()
    engine: EngineConfig = EngineConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()


WITHOUT_EFFECT = frozenset({"output", "overwrite", "register_as", "track", "workers", "cluster", "tracking"})
"""Fields of ``TrainConfig`` that say where a training runs and what is kept of it.

Its student is the same, but for ``workers.count``: ``batch`` is per worker.
"""


def value_at(config: TrainConfig, path: str) -> Any:  # noqa: ANN401  # any field
    """The value that stands at a path (``model.hidden_size``)."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def dro_weight(config: TrainConfig) -> float:
    """Alpha of the DRO term, which the student dros has by default."""
    if config.loss.dro_weight is not None:
        return config.loss.dro_weight
    return 0.1 if config.student == "dros" else 0.0
