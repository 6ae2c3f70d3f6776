"""What the files of a model or an adapter say, before an engine reads them."""

import json
from pathlib import Path

from cluster.errors import ModelError, StaleInputError

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM makes room for


def is_causal(model: Path) -> bool:
    """Whether a model directory holds a model that generates text.

    Raises:
        StaleInputError: there is no model directory at ``model``.
        ModelError: its config.json is damaged.
    """
    file = model / "config.json"
    if not file.is_file():
        raise StaleInputError(
            f"{model} holds no teacher (no config.json): run `dllm2rec train-teacher` or name an HF model directory"
        )
    try:
        architectures = json.loads(file.read_text(encoding="utf-8")).get("architectures") or []
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{file} is not a model's config ({error}): name an HF model directory") from error
    return any("CausalLM" in name or "ConditionalGeneration" in name for name in architectures)


def lora_rank(adapter: Path) -> int:
    """The rank that vLLM has to make room for to hold a LoRA adapter.

    Raises:
        StaleInputError: there is no adapter directory at ``adapter``.
        ModelError: it is none that vLLM can hold.
    """
    file = adapter / "adapter_config.json"
    if not file.is_file():
        raise StaleInputError(f"{adapter} holds no LoRA adapter (no adapter_config.json): check --vllm.lora")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        rank = max([int(config["r"]), *(config.get("rank_pattern") or {}).values()])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{file} is not a LoRA adapter's config ({error}): name a PEFT directory") from error
    fitting = [room for room in LORA_RANKS if room >= rank]
    if not fitting:
        raise ModelError(f"{file}: vLLM holds adapters of rank {LORA_RANKS[-1]} at most, not {rank}: merge the adapter")
    return fitting[0]
