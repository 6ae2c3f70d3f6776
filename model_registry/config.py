"""Configs of the verbs ``register``, ``promote`` and ``rollback``."""

from pathlib import Path

from pydantic import Field

from cluster.config import Config, ModelName, TrackingConfig


class RegisterConfig(Config):
    """Put a student directory into the MLflow registry, as ``train --register-as`` does."""

    student: Path = Field(Path("runs/student"), description="Student directory (verb train).")
    name: ModelName = Field("dllm2rec-student", description="Registered model.")
    output: Path = Field(Path("runs/registration"), description="Directory for the version's number and its manifest.")
    overwrite: bool = Field(True, description="Replace an earlier registration in the output directory.")
    tracking: TrackingConfig = TrackingConfig()


class PromoteConfig(Config):
    """Make a registered student the champion if it is surely better on validation than the present one."""

    name: ModelName = Field("dllm2rec-student", description="Registered model.")
    version: int | None = Field(None, ge=1, description="Version to promote; none takes the newest.")
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="How sure to be that validation NDCG@20 is larger (one-sided bootstrap)."
    )
    across_datasets: bool = Field(False, description="Compare with a champion measured on another data set.")
    max_latency_ms: float | None = Field(
        None, gt=0, description="Largest 99th percentile of single requests, measured here; none does not measure."
    )
    max_megabytes: float | None = Field(None, gt=0, description="Largest size of the student's files; none allows any.")
    output: Path = Field(Path("runs/promotion"), description="Directory for the decision and its manifest.")
    overwrite: bool = Field(True, description="Replace an earlier decision in the output directory.")
    tracking: TrackingConfig = TrackingConfig()


class RollbackConfig(Config):
    """Give the champion's place back to the version that held it before."""

    name: ModelName = Field("dllm2rec-student", description="Registered model.")
    output: Path = Field(Path("runs/rollback"), description="Directory for what was done and its manifest.")
    overwrite: bool = Field(True, description="Replace an earlier rollback in the output directory.")
    tracking: TrackingConfig = TrackingConfig()
