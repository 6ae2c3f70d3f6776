"""Config of the verb ``teach``."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from cluster.config import ClusterConfig, Config
from data_prep.schema import SPLITS, Split


class VllmConfig(Config):
    """How one vLLM engine runs and what it takes from the cluster."""

    cpus: float = Field(1, gt=0, description="CPUs per engine.")
    gpu: bool = Field(False, description="Run on GPUs, tensor_parallel_size of them per engine.")
    autoscale: bool = Field(False, description="The cluster grows on demand: wait for engines that do not fit yet.")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that one engine is spread over.")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="Share of a GPU's memory an engine may take.")
    kv_cache_memory_bytes: int = Field(256 << 20, ge=1 << 20, description="Key/value cache of an engine on CPU, bytes.")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field("float32", description="Number format of weights.")
    max_model_len: int | None = Field(None, ge=16, description="Longest sequence, tokens; none takes the model's.")
    max_num_seqs: int = Field(64, ge=1, description="Sequences that are decoded together.")
    block_size: int = Field(32, ge=1, description="Tokens per cache block on CPU; small ones share short prefixes.")
    enforce_eager: bool = Field(True, description="Do not compile the model; turn off for large models on GPUs.")


class TeachConfig(Config):
    """Label the rows of a data set with a teacher: its ranking, its scores and its item embeddings."""

    dataset: Path = Field(Path("runs/dataset"), description="Data set directory (verb prepare).")
    teacher: str = Field(
        "runs/teacher", min_length=1, description="HF model directory, or minilm (the pip-installed all-MiniLM-L6-v2)."
    )
    ranking: Literal["ground", "embed"] = Field(
        "ground", description="ground: generate a title and ground it by L2; embed: cosine to the history's mean title."
    )
    top_k: int = Field(20, ge=1, description="Items kept per row, best first.")
    splits: tuple[Split, ...] = Field(SPLITS, min_length=1, description="Splits to label.")
    workers: int = Field(1, ge=1, description="vLLM engines at work side by side.")
    batch_size: int = Field(256, ge=1, description="Rows handed to an engine at a time.")
    max_new_tokens: int = Field(32, ge=1, description="Longest generated title, tokens (ground).")
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
    engine: VllmConfig = VllmConfig()
    output: Path = Field(Path("runs/labels"), description="Label directory to write.")
    overwrite: bool = Field(False, description="Replace earlier labels in the output directory.")
    cluster: ClusterConfig = ClusterConfig()
