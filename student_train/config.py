"""Config of the ``train`` verb."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from cluster.config import ClusterConfig, Config, EngineConfig, TrackingConfig, WorkersConfig


class StudentConfig(Config):
    """The shape of the student."""

    width: int = Field(64, ge=4, description="Width D of item embeddings and states.")
    layers: int = Field(1, ge=1, description="GRU layers or self-attention blocks.")
    heads: int = Field(2, ge=1, description="Attention heads (SASRec); must divide the width.")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout on embeddings and inside blocks.")
    history: int = Field(10, ge=1, description="Newest history items used.")
    output: Literal["tied", "separate"] = Field("tied", description="Whether input and output share one item table.")


class ObjectiveConfig(Config):
    """The student's own loss."""

    loss: Literal["softmax", "bce"] = Field("softmax", description="Full softmax, or BCE with sampled negatives.")
    negatives: int = Field(1, ge=1, description="Sampled negatives per row (BCE).")
    dro_weight: float = Field(0.1, ge=0, description="Alpha of the DRO term; used by the student dros only.")
    dro_beta: float = Field(1.0, gt=0, description="Beta of the DRO term.")


class DistillationConfig(Config):
    """What the student takes from the teacher; used when labels are given."""

    lam: float = Field(0.5, ge=0, description="Lambda, weight of the ranking distillation; 0 switches it off.")
    top_k: int = Field(10, ge=1, description="Length K of the teacher list used.")
    gamma_position: float = Field(0.3, ge=0, description="Weight of the position importance.")
    gamma_confidence: float = Field(0.5, ge=0, description="Weight of the teacher's confidence.")
    gamma_consistency: float = Field(0.1, ge=0, description="Weight of the student-teacher agreement.")
    beta: float = Field(1.0, gt=0, description="Decay of the position importance, in ranks.")
    ed_weight: float = Field(1.0, ge=0, description="Weight of the projected teacher embeddings; 0 switches them off.")


class TrainConfig(Config):
    """Train a student on a prepared data set, distilled from a teacher's labels if they are given."""

    dataset: Path = Field(Path("runs/dataset"), description="Data set directory (verb prepare).")
    labels: Path | None = Field(None, description="Label directory (verb teach); none trains the plain student.")
    output: Path = Field(Path("runs/student"), description="Student directory to write.")
    overwrite: bool = Field(False, description="Replace an earlier student in the output directory.")
    student: Literal["gru4rec", "sasrec", "dros"] = Field("sasrec", description="Student; dros is SASRec with DRO.")
    shape: StudentConfig = StudentConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    distillation: DistillationConfig = DistillationConfig()
    learning_rate: float = Field(3e-3, gt=0, description="Learning rate of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    batch: int = Field(256, ge=1, description="Rows per worker and step (micro batch).")
    epochs: int = Field(100, ge=1, description="Most epochs.")
    evaluate_every: int = Field(1, ge=1, description="Epochs between evaluations on validation.")
    patience: int = Field(10, ge=1, description="Evaluations without gain in validation NDCG@20 before stopping.")
    seed: int = Field(0, ge=0, description="Seed of weights, batches and negatives.")
    register_as: str | None = Field(None, description="Name to register the student under in MLflow; none does not.")
    workers: WorkersConfig = WorkersConfig()
    engine: EngineConfig = EngineConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
