"""Configs: one pydantic model per verb, filled from a YAML file and overridden on the command line.

A YAML file has one section per verb (``prepare:``, ``train:`` …), so that one file describes the complete pipeline for
a data set. Importing a config needs neither torch nor ray nor vllm nor mlflow.
"""

import contextlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import tyro
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from cluster.errors import ConfigError


class Config(BaseModel):
    """Base of all configs: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _write(self, values: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """As JSON, which manifests, MLflow and other processes get, addresses hold no credentials."""
        settings: dict[str, Any] = values(self)
        if info.mode != "json":
            return settings
        return {name: _redacted(value) for name, value in settings.items()}


def _redacted(value: Any) -> Any:  # noqa: ANN401  # what JSON holds
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    return {name: _redacted(item) for name, item in value.items()} if isinstance(value, dict) else value


def without_credentials(text: str) -> str:
    """The text without ``user:password@`` in addresses, and with stars for the value of ``?password=`` and its like."""
    text = re.sub(r"(?<=://)([^/\s:@]*:\S*|[^/\s@]+)@", "", text)
    return re.sub(r"(?i)([?&;](?:password|passwd|pwd|token|secret|sslpassword|api_?key)=)[^&;\s'\"]+", r"\1***", text)


C = TypeVar("C", bound=Config)
V = TypeVar("V")
_NO_EFFECT = "no effect on the result"
NoEffect = Annotated[V, _NO_EFFECT]
"""A field that says where or how a job runs, or names an input that is known by its fingerprint."""


def has_effect(field: FieldInfo) -> bool:
    """Whether the result of a verb depends on a field."""
    return _NO_EFFECT not in field.metadata


_NOT_IN_MODEL_NAMES = "/:.%\"'@"


def _model_name(name: str) -> str:
    if not name.strip() or set(name) & set(_NOT_IN_MODEL_NAMES):
        raise ValueError(f"a registered model's name must not be empty or hold any of {' '.join(_NOT_IN_MODEL_NAMES)}")
    return name


ModelName = Annotated[str, AfterValidator(_model_name)]
"""The name of a registered model; MLflow would refuse an illegal one only when the model is there."""


def no_ray_client(address: str | None) -> str | None:
    """Refuse an address of the Ray client, which runs neither Ray Train nor what a verb does in its own process.

    Raises:
        ValueError: see above.
    """
    if address and address.startswith("ray://"):
        raise ValueError(
            f"{address} is an address of the Ray client, through which verbs do not run: use "
            "`dllm2rec submit --address http://HEAD:8265 VERB …`"
        )
    return address


class ClusterConfig(Config):
    """Where the work runs."""

    address: Annotated[str | None, AfterValidator(no_ray_client)] = Field(
        None,
        description="Ray address (HEAD:6379, auto), on one of its nodes; none starts a local Ray. From elsewhere, "
        "`dllm2rec submit` runs a verb on a cluster.",
    )
    cpus: int | None = Field(None, ge=1, description="CPUs of a local Ray; none takes all of the machine.")


class TrackingConfig(Config):
    """Where runs and models are recorded."""

    uri: str | None = Field(
        None,
        description="MLflow tracking URI (SQL database or server); none takes MLFLOW_TRACKING_URI, else "
        "sqlite:///mlflow.db.",
    )
    experiment: str = Field(default="dllm2rec", min_length=1, description="MLflow experiment name.")


class ResourcesConfig(Config):
    """What a verb's workers take from the cluster."""

    workers: int = Field(1, ge=1, description="Workers side by side (in a training: the world size).")
    cpus: NoEffect[float] = Field(1, gt=0, description="CPUs per worker.")
    gpus: NoEffect[float] = Field(0, ge=0, description="GPUs per worker; 0 runs on CPUs.")
    accelerator_type: NoEffect[str | None] = Field(
        None, description="Kind of GPU to ask for, by Ray's name (L40S, H100 …); none takes any."
    )
    autoscale: NoEffect[bool] = Field(
        False, description="The cluster grows on demand: wait for workers that do not fit yet."
    )

    @property
    def threads(self) -> int:
        """How many threads a worker computes with."""
        return max(1, int(self.cpus))

    def per_worker(self) -> dict[str, float]:
        """What one worker asks for, by Ray's names."""
        asked = {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
        return asked | ({f"accelerator_type:{self.accelerator_type}": 0.001} if self.accelerator_type else {})


class DeepSpeedConfig(Config):
    """How DeepSpeed runs a step."""

    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="ZeRO stage.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Number format of weights and activations.")
    gradient_accumulation: int = Field(1, ge=1, description="Micro batches per optimizer step.")
    gradient_clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0 does not clip.")
    offload: Literal["none", "cpu"] = Field(
        "none", description="cpu keeps the optimizer's state (zero_stage 1 to 3) and weights (3) in main memory."
    )

    @model_validator(mode="after")
    def _offload_needs_partitions(self) -> Self:
        if self.offload != "none" and not self.zero_stage:
            raise ValueError("offload cpu needs zero_stage 1, 2 or 3")
        return self


def _dashboard_address() -> str:
    return os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")


class SubmitConfig(Config):
    """Run a verb as a job on a Ray cluster; the verb and its own options follow these."""

    address: str = Field(
        default_factory=_dashboard_address,
        description="URL of the cluster's dashboard; the variable RAY_API_SERVER_ADDRESS sets another default.",
    )
    plain_http: bool = Field(
        False, description="Send the token over http to another machine, where anyone on the way can read it."
    )
    working_dir: Path = Field(Path(), description="Project directory to upload; the job runs in its copy.")
    wait: bool = Field(
        True, description="Print the job's log and end with its exit code; False, or --no-wait, leaves it running."
    )
    submission_id: str | None = Field(None, min_length=1, description="Name of the job; none lets Ray choose one.")
    cpus: float = Field(
        1,
        ge=0,
        description="CPUs for the verb's own process, which then runs on a worker node; 0 leaves it on the head.",
    )
    gpus: float = Field(0, ge=0, description="GPUs for the verb's own process.")
    memory: int = Field(0, ge=0, description="Memory for the verb's own process, bytes.")
    resources: str = Field(
        "", description="Own kinds of resources for the verb's own process: NAME=AMOUNT,NAME=AMOUNT."
    )

    @property
    def own_resources(self) -> dict[str, float]:
        """``resources`` by name."""
        pairs = (part.partition("=") for part in self.resources.split(",") if part)
        return {name.strip(): float(amount) for name, _, amount in pairs}

    @field_validator("resources")
    @classmethod
    def _pairs(cls, text: str) -> str:
        if not re.fullmatch(r"([\w:.-]+=\d+(\.\d+)?(,(?=.)|$))*", text):
            raise ValueError("must be like spot=1,large=0.5")
        return text


class JobsConfig(Config):
    """See and stop jobs that `submit` sent to a cluster: list, or status, logs or stop with the name of a job."""

    action: tyro.conf.Positional[Literal["list", "status", "logs", "stop"]] = Field("list", description="What to do.")
    job: tyro.conf.Positional[str] = Field("", description="Name of the job, as `jobs list` shows it.")
    address: str = Field(
        default_factory=_dashboard_address,
        description="URL of the cluster's dashboard; the variable RAY_API_SERVER_ADDRESS sets another default.",
    )
    plain_http: bool = Field(
        False, description="Send the token over http to another machine, where anyone on the way can read it."
    )

    @model_validator(mode="after")
    def _names_a_job(self) -> Self:
        if self.action != "list" and not self.job:
            raise ValueError(f"jobs {self.action} needs the name of a job, as `dllm2rec jobs list` shows it")
        return self


def load_config(model: type[C], verb: str, sections: Sequence[str], argv: Sequence[str]) -> C:
    """Build a verb's config from ``--config FILE`` and the overrides that follow it in ``argv``.

    Args:
        model: the verb's config model.
        verb: the section of the YAML file to read.
        sections: the names of all sections a YAML file may have.
        argv: the command line after the verb.

    Raises:
        ConfigError: the file or an option is unknown, malformed or out of range.
        SystemExit: ``--help`` was asked for (code 0).
    """
    file, overrides = split_config_option(argv)
    default = _from_file(model, verb, sections, file) if file else model()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(
                model,
                prog=f"dllm2rec {verb} [--config FILE]",
                description=model.__doc__,
                args=overrides,
                default=default,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(f"{_one_line(stop, printed.getvalue())} (see `dllm2rec {verb} --help`)") from None


def split_config_option(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Take ``--config FILE`` out of a command line.

    Raises:
        ConfigError: the option stands without a file.
    """
    rest = list(argv)
    for at, option in enumerate(rest):
        if option.startswith("--config="):
            return Path(option.removeprefix("--config=")), rest[:at] + rest[at + 1 :]
        if option == "--config":
            if at + 1 == len(rest):
                raise ConfigError("--config needs a YAML file")
            return Path(rest[at + 1]), rest[:at] + rest[at + 2 :]
    return None, rest


def _from_file(model: type[C], verb: str, sections: Sequence[str], file: Path) -> C:
    document = read_yaml(file)
    unknown = sorted(set(document) - set(sections), key=str)
    if unknown:
        raise ConfigError(f"{file}: unknown section `{unknown[0]}`: sections are {', '.join(sections)}")
    try:
        return model.model_validate(document.get(verb) or {})
    except ValidationError as error:
        raise ConfigError(f"{file}: {describe(error, prefix=verb)}") from error


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is absent, not UTF-8, not YAML, or not a mapping.
    """
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}): give a YAML file to --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text at byte {error.start}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: must be a mapping of verbs to their settings")
    return document


def describe(error: ValidationError, prefix: str = "") -> str:
    """One line for the first fault of a validation error: the field, the value, what is allowed."""
    first = error.errors()[0]
    place = ".".join(part for part in (prefix, *map(str, first["loc"])) if part)
    if first["type"] == "extra_forbidden":
        return f"unknown key `{place}`"
    if first["type"] == "value_error":  # a rule over several fields: the input is the whole section
        rule = first["msg"].removeprefix("Value error, ")
        return f"`{place}`: {rule}" if place else rule
    return f"`{place}` = {first['input']!r}: {first['msg']}"


def _one_line(stop: SystemExit, box: str) -> str:
    """What tyro's framed error says, without frame and help text; a pydantic error is described by :func:`describe`."""
    text = " ".join(re.sub(r"[╭╮╰╯│─]+", " ", "\n".join(box.splitlines()[1:])).split())
    place = re.match(r"Error parsing (\S+):", text)
    cause = stop.__context__
    while cause is not None:
        if isinstance(cause, ValidationError):
            nested = place is not None and place[1] != cause.title
            return describe(cause, prefix=place[1] if place and nested else "")
        cause = cause.__context__
    text, _, similar = re.split(r" (?:Argument helptext|For full helptext)", text)[0].partition(" Perhaps you meant:")
    if unknown := re.match(r"Unrecognized options: ([^,\s]+)", text):
        text = f"unknown option {unknown[1]}"
    names = re.findall(r"(--[\w.-]+) (?:[A-Z{\[])", similar)
    return text.rstrip(". ") + (f"; perhaps {', '.join(names)}" if names else "")
