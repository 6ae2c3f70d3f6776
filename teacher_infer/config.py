"""Config of the verb ``label``."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cluster.config import ClusterConfig, Config, NoEffect, ResourcesConfig
from cluster.dotted_path import one_of
from cluster.paths import AnyPath
from data_prep.schema import SPLITS, Split

RANKERS = {
    "ground": "teacher_infer.rankers.ground:Ground",
    "beam": "teacher_infer.rankers.likelihood:Likelihood",
    "score": "teacher_infer.rankers.likelihood:Likelihood",
    "embed": "teacher_infer.rankers.embed:Embed",
}
"""Ways to rank, each a :class:`teacher_infer.rankers.base.Ranker`."""
GENERATING = ("ground", "beam", "score")
"""Those that ask a causal language model, with the prompt that it was trained with."""


RESERVED = ("model", "tokenizer", "runner", "convert", "seed", "trust_remote_code", "hf_overrides", "lora")
"""Options of vLLM's engine that decide what the labels are, or run code that a model directory brings along."""


def _as_pairs(options: Any) -> Any:  # noqa: ANN401
    """A mapping of a YAML file as on the command line."""
    if not isinstance(options, Mapping):
        return options
    return tuple(f"{name}={json.dumps(value)}" for name, value in options.items())  # JSON is YAML


def _engine_options(options: tuple[str, ...]) -> tuple[str, ...]:
    for name in parsed(options):
        if name in VllmConfig.model_fields:
            raise ValueError(f"{name} has an option of its own, --vllm.{name.replace('_', '-')}")
        if name in RESERVED:
            raise ValueError(f"{name} cannot be given: the model's directory alone says what labels mean")
    return options


def parsed(options: Iterable[str]) -> dict[str, Any]:
    """Options of vLLM's engine by name.

    Raises:
        ValueError: one is not NAME=VALUE with a value of YAML.
    """
    found = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ValueError(f"{option!r} is not NAME=VALUE")
        try:
            found[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"the value of {option!r} is not YAML") from None
    return found


class VllmConfig(Config):
    """How one vLLM engine runs."""

    tensor_parallel_size: NoEffect[int] = Field(1, ge=1, description="GPUs that every layer is spread over.")
    pipeline_parallel_size: NoEffect[int] = Field(1, ge=1, description="Stages that the layers are divided into.")
    gpu_memory_utilization: NoEffect[float] = Field(
        0.9, gt=0, le=1, description="Share of a GPU's memory an engine may take."
    )
    kv_cache_memory_bytes: NoEffect[int] = Field(
        256 << 20, ge=1 << 20, description="Key/value cache of an engine on CPU, bytes."
    )
    dtype: Literal["float32", "bfloat16", "float16", "auto"] | None = Field(
        None, description="Number format of weights; none takes the model's own (auto) on a GPU, float32 on a CPU."
    )
    quantization: str | None = Field(
        None,
        description="How vLLM quantises the weights (fp8 …, on a GPU); none takes what the model's config says.",
    )
    lora: NoEffect[AnyPath | None] = Field(None, description="LoRA adapter directory (PEFT) to apply to the model.")
    max_model_len: int | None = Field(
        None, ge=16, description="Longest sequence, tokens; none takes what the longest prompt and answer need."
    )
    max_num_seqs: NoEffect[int] = Field(256, ge=1, description="Sequences that are decoded together.")
    block_size: NoEffect[int] = Field(
        32, ge=1, description="Tokens per cache block on CPU; small ones share short prefixes."
    )
    prefix_caching: NoEffect[bool] = Field(
        True, description="Keep the keys and values of prompts that share a beginning."
    )
    enforce_eager: NoEffect[bool | None] = Field(
        None, description="Do not compile the model; none compiles it and records CUDA graphs on a GPU only."
    )
    options: Annotated[tuple[str, ...], BeforeValidator(_as_pairs), AfterValidator(_engine_options)] = Field(
        (), description="Any other options of vLLM's engine, NAME=VALUE each, values as in YAML."
    )


class LabelConfig(Config):
    """Label the rows of a data set with a teacher: its ranking, its scores and its item embeddings."""

    dataset: NoEffect[AnyPath] = Field(Path("runs/dataset"), description="Data set directory (verb prepare).")
    teacher: NoEffect[str] = Field(
        "runs/teacher", min_length=1, description="HF model directory, or minilm (the pip-installed all-MiniLM-L6-v2)."
    )
    ranking: Annotated[str, one_of(RANKERS)] = Field(
        "ground",
        description="ground: generate a title and take the nearest ones by L2; beam: the likeliest titles of the "
        "catalogue; score: the likelihood of every candidate; embed: cosine to the history's titles; or your own "
        "ranker as my_package.module:Name.",
    )
    top_k: int = Field(20, ge=1, description="Items kept per row, best first.")
    splits: tuple[Split, ...] = Field(SPLITS, min_length=1, description="Splits to label.")
    limit: NoEffect[int | None] = Field(
        None, ge=1, description="Label only this many rows of each split; without it the same command does the rest."
    )
    dry_run: NoEffect[bool] = Field(
        False, description="Say what the complete job takes; with limit, after these rows are labelled, its time too."
    )
    rows_per_shard: int = Field(1024, ge=1, description="Rows labelled and committed together.")
    resources: NoEffect[ResourcesConfig] = ResourcesConfig()
    max_workers: NoEffect[int | None] = Field(
        None, ge=1, description="Most engines where the cluster has room; none: resources.workers."
    )
    placement_timeout: NoEffect[float] = Field(600, gt=0, description="Seconds to wait for room for the engines.")
    progress_timeout: NoEffect[float] = Field(
        3600,
        gt=0,
        description="Seconds without a finished shard after which the job ends, as where machines are lost for good; "
        "loading an engine and labelling a shard must fit in.",
    )
    max_failures: NoEffect[float] = Field(
        0.01, ge=0, le=1, description="Share of the rows that may fail before the job stops."
    )
    max_new_tokens: int = Field(32, ge=1, description="Longest generated title, tokens (ground).")
    beams: int | None = Field(
        None, ge=1, description="Beams: none is greedy for ground and as many as top_k for beam, which needs no fewer."
    )
    length_normalised: bool = Field(
        False,
        description="Rank titles by log-probability per token instead of that of the complete title (beam, score).",
    )
    candidates: NoEffect[AnyPath | None] = Field(
        None, description="Label directory whose lists are the candidates; none takes the complete catalogue (score)."
    )
    history: Literal["mean", "text"] = Field(
        "mean", description="Whether a history is the mean of its titles' embeddings or one text (embed)."
    )
    decay: float = Field(0.7, gt=0, le=1, description="Weight of a history item per step back in time (embed).")
    whiten: float = Field(
        0.5,
        ge=0,
        le=1,
        description="How far the principal components of the item embeddings are evened out: 0 leaves the model's own, "
        "1 gives all the same variance (embed).",
    )
    exclude_history: bool | None = Field(
        None, description="Leave items of the history out of the ranking; none does so for embed only."
    )
    grounding_memory: NoEffect[int] = Field(
        512 << 20,
        ge=1 << 20,
        description="Most bytes that ranking by distance may take beside the item embeddings, which are memory-mapped.",
    )
    embedding_dtype: Literal["float32", "float16"] = Field(
        "float32", description="Number format in which the item embeddings are stored."
    )
    vllm: VllmConfig = VllmConfig()
    output: NoEffect[AnyPath] = Field(Path("runs/labels"), description="Label directory to write.")
    overwrite: NoEffect[bool] = Field(
        False, description="Label again what is finished or was begun with something else."
    )
    cluster: NoEffect[ClusterConfig] = ClusterConfig()

    @model_validator(mode="after")
    def _gpus_fit(self) -> "LabelConfig":
        spread = self.vllm.tensor_parallel_size * self.vllm.pipeline_parallel_size
        if self.resources.gpus and spread > 1 and self.resources.gpus != spread:
            raise ValueError(f"resources.gpus is {self.resources.gpus:g}, but an engine is spread over {spread} GPUs")
        return self
