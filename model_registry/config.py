"""Configs of the verbs ``register``, ``promote``, ``rollback`` and ``recommend``."""

from pathlib import Path

from pydantic import Field

from cluster.config import ClusterConfig, Config, ModelName, TrackingConfig
from cluster.paths import AnyPath


class RegisterConfig(Config):
    """Put a student directory into the MLflow registry, as ``train --register-as`` does."""

    student: AnyPath = Field(Path("runs/student"), description="Student directory (verb train).")
    name: ModelName = Field("dllm2rec-student", description="Registered model.")
    output: AnyPath = Field(
        Path("runs/registration"), description="Directory for the version's number and its manifest."
    )
    overwrite: bool = Field(True, description="Replace an earlier registration in the output directory.")
    tracking: TrackingConfig = TrackingConfig()


class PromoteConfig(Config):
    """Make a registered student the champion if it is surely better on rows that no selection saw."""

    name: ModelName = Field("dllm2rec-student", description="Registered model.")
    version: int | None = Field(None, ge=1, description="Version to promote; none takes the newest.")
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="How sure to be that NDCG@20 on gate rows is larger (one-sided, over users)."
    )
    across_datasets: bool = Field(False, description="Compare with a champion measured on another data set.")
    max_latency_ms: float | None = Field(
        None, gt=0, description="Largest 99th percentile of single requests, measured here; none does not measure."
    )
    max_megabytes: float | None = Field(None, gt=0, description="Largest size of the student's files; none allows any.")
    output: AnyPath = Field(Path("runs/promotion"), description="Directory for the decision and its manifest.")
    overwrite: bool = Field(True, description="Replace an earlier decision in the output directory.")
    tracking: TrackingConfig = TrackingConfig()


class RollbackConfig(Config):
    """Give the champion's place back to the version that held it before."""

    name: ModelName = Field("dllm2rec-student", description="Registered model.")
    output: AnyPath = Field(Path("runs/rollback"), description="Directory for what was done and its manifest.")
    overwrite: bool = Field(True, description="Replace an earlier rollback in the output directory.")
    tracking: TrackingConfig = TrackingConfig()


class RecommendConfig(Config):
    """Recommend titles for a history, a new user's included, or for a file of histories."""

    model: str = Field(
        "models:/dllm2rec-student@champion", description="models:/NAME@ALIAS, models:/NAME/VERSION or a directory."
    )
    history: tuple[str, ...] = Field(
        (), description="Item ids or titles, oldest first; none asks for the most popular items."
    )
    histories: AnyPath | None = Field(
        None,
        description="Parquet file, or directory of them, with a column history of lists of item ids or titles, all "
        "answered on all CPUs; other columns are kept.",
    )
    rows_per_shard: int = Field(50_000, ge=1, description="Histories per file of the answer to a file.")
    k: int = Field(10, ge=1, description="How many titles.")
    exclude_history: bool = Field(True, description="Leave out what the history holds.")
    output: AnyPath = Field(Path("runs/recommendations"), description="Directory for the recommendations.")
    overwrite: bool = Field(True, description="Replace earlier recommendations in the output directory.")
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
