"""Config of the ``tune`` verb."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import yaml
from pydantic import Field, model_validator

from cluster.config import ClusterConfig, Config, DeepSpeedConfig, ModelName, NoEffect, ResourcesConfig, TrackingConfig
from cluster.paths import AnyPath
from student_train.config import TrainConfig

Value = bool | int | float | str | None
Objective = Literal["ndcg@20", "hr@20", "size", "latency"]
MINIMISED: tuple[Objective, ...] = ("size", "latency")
_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


class Domain(Config):
    """Where the values of one field come from: `values`, or a range from `low` to `high`.

    As text: ``sasrec,gru4rec``, ``0.1..2``, ``0.1..6:log`` or ``1..4:integer``.
    """

    values: tuple[Value, ...] | None = Field(None, min_length=1, description="The values to choose from.")
    low: float | None = Field(None, allow_inf_nan=False, description="Smallest value.")
    high: float | None = Field(None, allow_inf_nan=False, description="Largest value.")
    log: bool = Field(False, description="Sample the logarithm evenly instead of the value.")
    integer: bool = Field(False, description="Whole numbers only.")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:  # noqa: ANN401  # whatever the YAML file holds
        if isinstance(given, str):
            return parse(given)
        if isinstance(given, dict) and isinstance(given.get("values"), list | tuple):
            return given | {"values": [number(value) for value in given["values"]]}
        return given

    @model_validator(mode="after")
    def _sound(self) -> "Domain":
        if self.values is not None:
            if self.low is not None or self.high is not None or self.log or self.integer:
                raise ValueError("give either values, or low and high")
            if len(set(map(repr, self.values))) < len(self.values):
                raise ValueError("a value stands twice")
        elif self.low is None or self.high is None:
            raise ValueError("give values, or both low and high")
        elif self.low >= self.high:
            raise ValueError(f"the range is empty: low {self.low:g} must be below high {self.high:g}")
        elif self.log and self.low <= 0:
            raise ValueError("a logarithmic range must start above 0")
        elif self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("a range of whole numbers must start and end with one")
        return self

    def ends(self) -> tuple[Value, ...]:
        """All values, or both ends of the range."""
        if self.values is not None:
            return self.values
        return tuple(int(end) if self.integer else end for end in (self.low, self.high) if end is not None)

    def holds(self, value: Value) -> bool:
        """Whether ``value`` can be drawn."""
        if self.values is not None:
            return value in self.values
        low, high = self.ends()
        fits = isinstance(value, int | float) and low <= value <= high  # type: ignore[operator]
        return fits and not (self.integer and value % 1)  # type: ignore[operator]


def parse(text: str) -> dict[str, Any]:
    """Settings of a :class:`Domain` from its text."""
    body, *options = text.split(":")
    low, dots, high = body.partition("..")
    unknown = set(options) - {"log", "integer"}
    if unknown:
        raise ValueError(f"`{text}`: {unknown.pop()} is neither log nor integer")
    if not dots:
        return {"values": [_value(text, value) for value in body.split(",")]} | dict.fromkeys(options, True)
    return {"low": low, "high": high} | dict.fromkeys(options, True)


def _value(text: str, value: str) -> Any:  # noqa: ANN401  # whatever YAML makes of it
    try:
        return number(yaml.safe_load(value))
    except yaml.YAMLError:
        raise ValueError(f"`{text}`: {value} is no value") from None


def number(value: Any) -> Any:  # noqa: ANN401  # whatever YAML makes of it
    """A number for the text of one: YAML reads ``1e-3`` as a text."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value.strip()) else value


def render(domain: Domain) -> str:
    """The text of a domain: the inverse of :func:`parse`."""
    if domain.values is not None:
        return ",".join("null" if value is None else str(value) for value in domain.values)
    options = [name for name in ("log", "integer") if getattr(domain, name)]
    ends = "..".join(_number(float(end)) for end in (domain.low, domain.high) if end is not None)
    return ":".join([ends, *options])


def _number(value: float) -> str:
    """The shortest text that reads as this number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


DomainText = Annotated[
    Domain,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="A,B,…|LOW..HIGH[:log]",
        instance_from_str=lambda texts: texts[0],  # pydantic makes a domain of it and says what is wrong
        is_instance=lambda made: isinstance(made, Domain),
        str_from_instance=lambda made: [render(made)],
    ),
]


class SearchConfig(Config):
    """What is searched, how points are proposed, and when a trial ends."""

    space: dict[str, DomainText] = Field(
        {},
        description="Where fields of the section train take their values from, by path (distillation.lam 0.1..2 "
        "model.name sasrec,gru4rec); by default the weights of the strategy and the learning rate.",
    )
    algorithm: Literal["grid", "random", "optuna"] = Field(
        "random", description="How points are proposed: all in turn, at random, or by Optuna's TPE."
    )
    objectives: tuple[Objective, ...] = Field(
        ("ndcg@20",),
        min_length=1,
        max_length=2,
        description="What is optimised, on validation; with size (parameters) or latency (milliseconds for one "
        "history) beside it, Optuna looks for the best of both.",
    )
    scheduler: Literal["none", "asha", "pbt"] = Field(
        "asha",
        description="none trains all trials to their end, asha stops weak ones, pbt lets weak ones take over strong "
        "ones' weights.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "SearchConfig":
        if self.objectives[0] in MINIMISED or len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives must start with ndcg@20 or hr@20 and name nothing twice")
        if len(self.objectives) > 1 and self.algorithm != "optuna":
            raise ValueError(f"two objectives need the algorithm optuna, not {self.algorithm}")
        return self


class AshaConfig(Config):
    """Successive halving: weak trials stop early."""

    max_epochs: int = Field(30, ge=1, description="Most epochs of a trial.")
    grace: int = Field(4, ge=1, description="Epochs every trial gets.")
    reduction: float = Field(3.0, gt=1, description="Of every so many trials at a rung, one continues.")

    @model_validator(mode="after")
    def _grace_fits(self) -> "AshaConfig":
        if self.grace > self.max_epochs:
            raise ValueError(f"grace {self.grace} must not exceed max_epochs {self.max_epochs}")
        return self


class PbtConfig(Config):
    """Population based training: after every round the weakest take over weights of the strongest."""

    rounds: int = Field(4, ge=2, description="Rounds of training; the population are the `trials`.")
    epochs: int = Field(5, ge=1, description="Epochs of a round.")
    quantile: float = Field(
        0.25, gt=0, le=0.5, description="Share of the population that takes over and is taken from."
    )
    resample: float = Field(
        0.25, ge=0, le=1, description="Chance that a value taken over is drawn again, not just moved."
    )


_UNUSED = {
    "output": "the output directory of this verb holds everything",
    "overwrite": "set the verb's own `overwrite`",
    "register_as": "set the verb's own `register_as`",
    "max_failures": "set `retries`",
    "checkpoint_seconds": "set the verb's own `checkpoint_seconds`",
    "resources": "set the verb's own `resources`",
    "cluster": "set the verb's own `cluster`",
    "tracking": "set the verb's own `tracking`",
}
"""Fields of the section ``train`` that searches and comparisons do not use."""


def without_unused(train: TrainConfig) -> TrainConfig:
    """``train`` as the section of a search or a comparison."""
    default = TrainConfig()
    return train.model_copy(update={name: getattr(default, name) for name in _UNUSED})


class TrialsConfig(Config):
    """How trials run: what searches and comparisons have in common."""

    concurrent: NoEffect[int | None] = Field(
        None, ge=1, description="Most trials at a time; by default as many as the cluster has room for."
    )
    resources: ResourcesConfig = Field(
        ResourcesConfig(),
        description="What one trial takes (`gpus` may be a share of one); several workers train it with Ray Train.",
    )
    retries: NoEffect[int] = Field(
        3, ge=0, description="Times a trial resumes after its process died; then it counts as failed."
    )
    checkpoint_seconds: NoEffect[float] = Field(
        30, ge=0, description="Seconds of training between two checkpoints of a trial."
    )
    overwrite: NoEffect[bool] = Field(False, description="Start again where an earlier output stands.")
    train: TrainConfig = TrainConfig()
    cluster: NoEffect[ClusterConfig] = ClusterConfig()
    tracking: NoEffect[TrackingConfig] = TrackingConfig()

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "TrialsConfig":
        default = TrainConfig()
        for name, instead in _UNUSED.items():
            if getattr(self.train, name) != getattr(default, name):
                raise ValueError(f"train.{name} has no effect here: {instead}")
        if self.resources.autoscale and not self.concurrent:
            raise ValueError("resources.autoscale needs `concurrent`: how many trials a grown cluster has room for")
        return self


class TuneConfig(TrialsConfig):
    """Search fields of ``train`` on validation, then train and register the best student; stopped, it resumes.

    The student goes to OUTPUT/student. Resources, cluster and tracking of this config hold for its training too.
    """

    trials: NoEffect[int | None] = Field(
        None,
        ge=1,
        description="Settings to try, by default 12 or the whole grid; the first is the train section's own, if the "
        "space holds it. A finished search resumes when it is given more.",
    )
    start_from: NoEffect[AnyPath | None] = Field(
        None,
        description="Output of an earlier search, of another space or on less data: its five best points come first.",
    )
    seeds: int = Field(
        1, ge=1, description="Seeds of every setting: one trial trains them in turn, and their median counts."
    )
    seed: int = Field(0, ge=0, description="Seed of the sampled points.")
    fused: int = Field(
        1,
        ge=1,
        description="Settings that one trial trains as one stacked model, if they differ in weights and rates alone; "
        "32 small students fill a GPU. `asha` halves such a bracket inside.",
    )
    search: SearchConfig = SearchConfig()
    asha: AshaConfig = AshaConfig()
    pbt: PbtConfig = PbtConfig()
    register_as: NoEffect[ModelName] = Field("dllm2rec-student", description="Registered model of the best student.")
    output: NoEffect[AnyPath] = Field(
        Path("runs/search"), description="Directory for trials, report, best config and student."
    )

    @model_validator(mode="after")
    def _fused_fits(self) -> "TuneConfig":
        plain = self.train.deepspeed.model_copy(update={"gradient_clip": DeepSpeedConfig().gradient_clip})
        alone = self.resources.workers > 1 or self.search.scheduler == "pbt" or plain != DeepSpeedConfig()
        if self.fused > 1 and alone:
            raise ValueError("fused must be 1 with several workers, the scheduler pbt, or settings of train.deepspeed")
        return self

    @model_validator(mode="after")
    def _pbt_and_grid_fit(self) -> "TuneConfig":
        if self.start_from and self.search.algorithm == "grid":
            raise ValueError("start_from has no effect on a grid, of which every point is tried")
        if self.search.scheduler == "pbt" and self.resources.workers > 1:
            raise ValueError("resources.workers must be 1 with the scheduler pbt, which hands on weights of one worker")
        return self
