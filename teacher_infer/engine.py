"""The one owner of vLLM: a model that generates titles, or one that embeds texts.

vLLM is imported when an engine is made, in a process whose environment is that of
:data:`cluster.ray_session.WORKER_ENVIRONMENT`. One engine cannot do both tasks.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cluster.errors import ConfigError, ModelError, StaleInputError
from teacher_infer.config import VllmConfig
from teacher_infer.prompts import fitted_prompt

Task = Literal["generate", "embed"]
LOAD_ERRORS = (ValueError, RuntimeError, OSError, KeyError, TypeError, AttributeError, NotImplementedError, ImportError)


class Generated(NamedTuple):
    """A generated text, and how many of the oldest titles its prompt had no room for."""

    text: str
    dropped: int


class VllmEngine:
    """One vLLM engine for one task.

    Raises:
        ModelError: vLLM cannot load the model.
    """

    def __init__(self, model: Path, task: Task, config: VllmConfig) -> None:
        from vllm import LLM

        try:
            self._llm = LLM(**_arguments(model, task, config))
        except LOAD_ERRORS as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"vLLM cannot load the teacher {model}: {type(error).__name__}: {reason}") from error
        self._tokenizer = self._llm.get_tokenizer()
        self._room = self._llm.model_config.max_model_len

    def generate(self, histories: Sequence[Sequence[str]], max_new_tokens: int) -> list[Generated]:
        """The greedy answer to every history of titles, up to the end of text.

        Raises:
            ConfigError: the model has no room for ``max_new_tokens``.
        """
        from vllm import SamplingParams

        if self._room <= max_new_tokens:
            raise ConfigError(f"--max-new-tokens {max_new_tokens} leaves no room for a prompt in {self._room} tokens")
        prompts = [fitted_prompt(titles, self._count, self._room - max_new_tokens) for titles in histories]
        sampling = SamplingParams(temperature=0, max_tokens=max_new_tokens)
        outputs = self._llm.generate([self._tokens(text) for text, _ in prompts], sampling, use_tqdm=False)
        return [Generated(o.outputs[0].text, dropped) for o, (_, dropped) in zip(outputs, prompts, strict=True)]

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [len(texts), E] float32; a text too long for the model is cut at its end.

        A causal LM gives the hidden state of the last token after the final norm, not normalised; a text-embedding
        model pools and normalises as it was trained to.
        """
        outputs = self._llm.embed([self._tokens(text) for text in texts], use_tqdm=False)
        return torch.tensor([output.outputs.embedding for output in outputs], dtype=torch.float32)

    def _tokens(self, text: str) -> dict[str, list[int]]:
        ids = self._tokenizer(text, truncation=True, max_length=self._room)["input_ids"]
        return {"prompt_token_ids": ids or [self._tokenizer.eos_token_id]}

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text)["input_ids"])


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


def _arguments(model: Path, task: Task, config: VllmConfig) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": str(model),
        "dtype": config.dtype,
        "max_num_seqs": config.max_num_seqs,
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel_size,
        "enable_prefix_caching": task == "generate",
        "seed": 0,
    }
    if config.max_model_len:
        arguments["max_model_len"] = config.max_model_len
    if config.gpu:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
    else:
        arguments |= {"kv_cache_memory_bytes": config.kv_cache_memory_bytes, "block_size": config.block_size}
    return arguments | (_pooling(is_causal(model)) if task == "embed" else {})


def _pooling(causal: bool) -> dict[str, Any]:
    if not causal:
        return {"runner": "pooling"}
    from vllm.config import PoolerConfig

    pooler = PoolerConfig(seq_pooling_type="LAST", use_activation=False)
    return {"runner": "pooling", "convert": "embed", "pooler_config": pooler}
