"""Config of the ``tune`` verb."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from cluster.config import ClusterConfig, Config, TrackingConfig
from student_train.config import TrainConfig

Parameter = Literal[
    "lam",
    "ed_weight",
    "temperature",
    "trust",
    "gamma_position",
    "gamma_confidence",
    "gamma_consistency",
    "learning_rate",
]
COMMON: tuple[Parameter, ...] = ("lam", "ed_weight", "learning_rate")
OF_STRATEGY: dict[str, tuple[Parameter, ...]] = {
    "soft": ("temperature",),
    "dllm2rec": ("gamma_position", "gamma_confidence", "gamma_consistency"),
    "dllm2rec-official": ("gamma_position", "gamma_confidence", "gamma_consistency"),
}
"""Parameters that have an effect with one strategy and not with every other."""


class Range(Config):
    """Where a parameter is sampled from."""

    low: float = Field(0.0, ge=0, description="Smallest value.")
    high: float = Field(1.0, gt=0, description="Largest value.")
    log: bool = Field(False, description="Sample the logarithm evenly instead of the value.")

    @model_validator(mode="after")
    def _not_empty(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"the range is empty: low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low == 0:
            raise ValueError("a logarithmic range must start above 0")
        return self


class SearchConfig(Config):
    """What is searched, and in which ranges."""

    parameters: tuple[Parameter, ...] | None = Field(
        None,
        min_length=1,
        description="Parameters to search, by default the weights of the strategy and the learning rate; the others "
        "stay as the train section has them.",
    )
    lam: Range = Range(low=0.1, high=2.0)
    ed_weight: Range = Range(low=0.1, high=6.0, log=True)
    temperature: Range = Range(low=0.1, high=2.0, log=True)
    trust: Range = Range(low=0.0, high=1.0)
    gamma_position: Range = Range(low=0.0, high=1.0)
    gamma_confidence: Range = Range(low=0.0, high=1.0)
    gamma_consistency: Range = Range(low=0.0, high=1.0)
    learning_rate: Range = Range(low=3e-4, high=5e-3, log=True)


def searched(config: "TuneConfig") -> tuple[Parameter, ...]:
    """The parameters that a search varies."""
    if config.search.parameters is not None:
        return config.search.parameters
    if config.train.labels is None:
        return ("learning_rate",)
    return COMMON + OF_STRATEGY.get(config.train.distillation.strategy, ())


class AshaConfig(Config):
    """Asynchronous successive halving: weak trials stop early."""

    max_epochs: int = Field(30, ge=1, description="Most epochs of a trial.")
    grace: int = Field(4, ge=1, description="Epochs every trial gets.")
    reduction: float = Field(3.0, gt=1, description="Of every so many trials at a rung, one goes on.")

    @model_validator(mode="after")
    def _grace_fits(self) -> "AshaConfig":
        if self.grace > self.max_epochs:
            raise ValueError(f"grace {self.grace} must not exceed max_epochs {self.max_epochs}")
        return self


class TuneConfig(Config):
    """Search the distillation weights and the learning rate on validation NDCG@20, then train the best student.

    The student goes to OUTPUT/student; cluster and tracking of this config hold for its training too.
    """

    trials: int = Field(
        12, ge=1, description="Configurations to try; the first is the train section's own, if the ranges include it."
    )
    seeds: int = Field(1, ge=1, description="Seeds per configuration; the mean over them is compared.")
    seed: int = Field(0, ge=0, description="Seed of the sampled configurations.")
    concurrent: int = Field(2, ge=1, description="Trials that run at a time.")
    cpus_per_trial: float = Field(1, gt=0, description="CPUs of a trial.")
    gpus_per_trial: float = Field(0, ge=0, description="GPUs of a trial.")
    search: SearchConfig = SearchConfig()
    asha: AshaConfig = AshaConfig()
    train: TrainConfig = TrainConfig()
    register_as: str = Field("dllm2rec-student", min_length=1, description="Registered model of the best student.")
    output: Path = Field(Path("runs/search"), description="Directory for trials, best config, picture and student.")
    overwrite: bool = Field(False, description="Replace an earlier search in the output directory.")
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
