"""Config of the verb ``demo``."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from cluster.config import ClusterConfig, Config, ModelName, TrackingConfig
from cluster.paths import AnyPath


class DemoConfig(Config):
    """Run the pipeline of a config file: data set, teacher, labels, students, search, registry, recommendations."""

    pipeline: AnyPath = Field(
        Path("configs/demo.yaml"),
        description="YAML file with a section per verb; without train-teacher none is trained.",
    )
    students: tuple[Literal["gru4rec", "sasrec", "dros"], ...] = Field(
        ("gru4rec", "sasrec", "dros"), min_length=1, description="Students, each trained plain and distilled."
    )
    text_teacher: bool = Field(
        True,
        description="Label with the pretrained text-embedding teacher (minilm) as well; students learn from the "
        "teacher that ranks better on validation.",
    )
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Seeds of every student; the table shows the mean.")
    concurrent: int = Field(2, ge=1, description="Students that train at a time.")
    search: bool = Field(True, description="Search the distillation weights as the section tune says.")
    register_as: ModelName = Field("dllm2rec-student", description="Registered model of the best student.")
    output: AnyPath = Field(Path("runs/demo"), description="Directory for all outputs, one folder each.")
    overwrite: bool = Field(True, description="Replace the outputs of an earlier demo.")
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
