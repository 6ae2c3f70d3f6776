"""Config of the verb ``compare``."""

from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field, model_validator

from cluster.config import NoEffect
from cluster.paths import AnyPath
from student_train.config import TrainConfig
from tune.config import TrialsConfig

PLAIN = "plain"
PLAIN_SETTINGS: dict[str, Any] = {"distillation": {"lam": 0.0, "embedding": "none"}}

Variants = Annotated[dict[str, dict[str, Any]], tyro.conf.Suppress]
"""Settings of ``train`` by the name that tables show; nested as in the section ``train``, and set in the file only."""


class CompareConfig(TrialsConfig):
    """Compare students and distillation strategies; `models` and `strategies` stand in the config file.

    Each maps a name in the tables to the settings of `train` that it changes. A name with " without " in it is an
    ablation of what stands before; `plain`, the student without teacher, is always there.
    """

    models: Variants = Field(
        {"SASRec": {"model": {"name": "sasrec"}}}, min_length=1, description="Settings of each student, by its name."
    )
    strategies: Variants = Field(
        {"soft": {"distillation": {"strategy": "soft"}}}, min_length=1, description="Settings of each strategy."
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Seeds of every student and strategy.")
    output: NoEffect[AnyPath] = Field(
        Path("runs/comparison"), description="Directory of tables and pictures; resumed if there."
    )
    train: TrainConfig = TrainConfig(labels=Path("runs/labels"))

    @model_validator(mode="after")
    def _seeds_are_here(self) -> "CompareConfig":
        if self.train.seed:
            raise ValueError("train.seed has no effect here: set `seeds`")
        return self
