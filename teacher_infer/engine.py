"""The one owner of vLLM: a model that generates titles and scores them, or one that embeds texts.

vLLM is imported when an engine is made, in a process whose environment is that of
:data:`cluster.ray_session.WORKER_ENVIRONMENT`. One engine cannot both generate and embed.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cluster.errors import ConfigError, ModelError
from cluster.files import local_copy
from cluster.lean_import import lean_import
from teacher_infer.beams import Beam, BeamSearch
from teacher_infer.config import VllmConfig, parsed
from teacher_infer.model_files import is_causal, lora_rank
from teacher_infer.prompts import Template, fitted, history_text, prompt
from teacher_infer.title_tokens import own_length, title_tokens

Task = Literal["generate", "embed"]
Tokens = Sequence[int]
LOAD_ERRORS = (
    *(ValueError, RuntimeError, OSError, KeyError, TypeError, AttributeError),
    *(NotImplementedError, ImportError, AssertionError, ArithmeticError),
)
MAX_CHOICES = 128  # vLLM's limit of tokens whose log-probability one request may ask for
MAX_REQUESTS = 4096  # handed to vLLM at a time: each costs some kilobytes of memory


class Prompt(NamedTuple):
    """The tokens of a prompt, and how many of the oldest titles it had no room for."""

    tokens: list[int]
    dropped: int


class Generated(NamedTuple):
    """A generated text with its counts of tokens; ``cached_tokens`` of the prompt's came from the prefix cache."""

    text: str
    dropped: int
    prompt_tokens: int
    new_tokens: int
    cached_tokens: int


class Logprobs(NamedTuple):
    """Log-probabilities [C] float64, the tokens that were read for them, and how many of these were cached."""

    values: npt.NDArray[np.float64]
    tokens: int
    cached: int


class VllmEngine:
    """One vLLM engine for one task.

    Raises:
        StaleInputError: there is no adapter at ``config.lora``.
        ModelError: vLLM cannot load the model or the adapter.
    """

    def __init__(
        self, model: Path, task: Task, config: VllmConfig, gpu: bool = False, length: int | None = None
    ) -> None:
        """``length``: tokens of the longest prompt and answer, where they are known."""
        with lean_import("sklearn"):  # of a way of speculative decoding
            from vllm import LLM
            from vllm.lora.request import LoRARequest

        rank = lora_rank(config.lora) if config.lora else None
        adapter_files = str(local_copy(config.lora)) if config.lora else ""
        self._lora = LoRARequest(config.lora.name or "adapter", 1, adapter_files) if config.lora else None
        if _eager(config, gpu):
            torch.compiler.set_stance("force_eager")  # vLLM compiles parts of its sampler all the same: 40 s on a CPU
        try:
            self._llm = LLM(**_arguments(local_copy(model), task, config, rank, gpu, length))
        except LOAD_ERRORS as error:
            adapter = f" with the adapter {config.lora}" if config.lora else ""
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"vLLM cannot load the teacher {model}{adapter}: {type(error).__name__}: {reason}"
            ) from error
        self._tokenizer = self._llm.get_tokenizer()
        self.room: int = self._llm.model_config.max_model_len

    @property
    def cache_tokens(self) -> int:
        """Tokens that the key/value cache holds."""
        cache = self._llm.llm_engine.vllm_config.cache_config
        return int(cache.num_gpu_blocks * cache.block_size)

    def close(self) -> None:
        """End the engine and its processes."""
        self._llm.llm_engine.engine_core.shutdown()

    def forget(self) -> None:
        """Empty the prefix cache: what is asked next is computed as by a new engine, to the last bit."""
        self._llm.reset_prefix_cache()

    def prompts(self, histories: Sequence[Sequence[str]], kept_free: int) -> list[Prompt]:
        """The prompt of every history of titles that leaves ``kept_free`` tokens of the model's length."""
        return self._fitted(prompt, histories, self.room - kept_free)

    def history_texts(self, histories: Sequence[Sequence[str]]) -> list[Prompt]:
        """Every history of titles as one text to embed."""
        return self._fitted(history_text, histories, self.room)

    def title_tokens(self, titles: Sequence[str]) -> list[list[int]]:
        """See :func:`teacher_infer.title_tokens.title_tokens`; cut to half of the model's length."""
        return title_tokens(self._tokenizer, titles, self.room // 2)

    def generate(self, histories: Sequence[Sequence[str]], max_new_tokens: int, beams: int = 1) -> list[Generated]:
        """The answer to every history of titles up to the end of text: greedy, or the best of a beam search.

        Raises:
            ConfigError: the model has no room for ``max_new_tokens``.
        """
        if self.room <= max_new_tokens:
            raise ConfigError(f"--max-new-tokens {max_new_tokens} leaves no room for a prompt in {self.room} tokens")
        prompts = self.prompts(histories, max_new_tokens)
        return (self._greedy if beams == 1 else self._beam)(prompts, max_new_tokens, beams)

    def _greedy(self, prompts: Sequence[Prompt], max_new_tokens: int, beams: int) -> list[Generated]:
        sampling = {"max_tokens": max_new_tokens, "detokenize": True}
        outputs = self._ask([p.tokens for p in prompts], [sampling] * len(prompts))
        return [
            Generated(
                text=output.outputs[0].text,
                dropped=asked.dropped,
                prompt_tokens=len(asked.tokens),
                new_tokens=len(output.outputs[0].token_ids),
                cached_tokens=output.num_cached_tokens or 0,
            )
            for asked, output in zip(prompts, outputs, strict=True)
        ]

    def _beam(self, prompts: Sequence[Prompt], max_new_tokens: int, beams: int) -> list[Generated]:
        """The best answer of each beam search by its log-probability per token, end of text included.

        vLLM's own search divides by the tokens of prompt and answer together, which favours short answers.
        """
        searches, end = [BeamSearch(beams) for _ in prompts], self._tokenizer.eos_token_id
        cached, wide = [0] * len(prompts), min(2 * beams, self._llm.model_config.get_vocab_size())
        for left in range(max_new_tokens - 1, -1, -1):
            asked = [(row, beam) for row, search in enumerate(searches) for beam in search.open]
            texts = [prompts[row].tokens + beam.tokens for row, beam in asked]
            outputs = self._ask(texts, [{"logprobs": wide}] * len(texts))
            found: list[list[Beam]] = [[] for _ in prompts]
            for (row, beam), output in zip(asked, outputs, strict=True):
                answer = output.outputs[0].logprobs
                pairs = zip(answer.token_ids, answer.logprobs, strict=True)
                found[row] += [Beam([*beam.tokens, t], beam.logprob + value) for t, value in dict(pairs).items()]
                if not beam.tokens:
                    cached[row] = output.num_cached_tokens or 0
            for search, children in zip(searches, found, strict=True):
                search.take(children, end, left)
        answers = [search.best() for search in searches]
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [
            Generated(text, asked.dropped, len(asked.tokens), len(answer), have)
            for text, asked, answer, have in zip(texts, prompts, answers, cached, strict=True)
        ]

    def next_logprobs(self, prompts: Sequence[Tokens], choices: Sequence[Tokens]) -> list[Logprobs]:
        """The model's own log-probability of each choice [C] as the token after its prompt."""
        parts = [
            (row, start) for row, tokens in enumerate(choices) for start in range(0, max(1, len(tokens)), MAX_CHOICES)
        ]
        asked = [list(map(int, choices[row][start : start + MAX_CHOICES])) for row, start in parts]
        outputs = self._ask([prompts[row] for row, _ in parts], [{"logprob_token_ids": tokens} for tokens in asked])
        values: list[list[float]] = [[] for _ in prompts]
        read, cached = [0] * len(prompts), [0] * len(prompts)
        for (row, _), output in zip(parts, outputs, strict=True):
            answer = output.outputs[0].logprobs
            values[row] += answer.logprobs[1:]  # the first is that of the token vLLM chose
            read[row] += len(prompts[row])
            cached[row] += output.num_cached_tokens or 0
        return [Logprobs(np.array(v), r, c) for v, r, c in zip(values, read, cached, strict=True)]

    def path_logprobs(self, prompts: Sequence[Tokens], paths: Sequence[Tokens]) -> list[Logprobs]:
        """The model's own log-probability of each token [C] of the path that follows its prompt."""
        texts = [[*before, *path] for before, path in zip(prompts, paths, strict=True)]
        outputs = self._ask(texts, [{"prompt_logprobs": 0, "skip_reading_prefix_cache": False}] * len(texts))
        # There is no log-probability of a token whose predecessor was cached.
        hidden = [row for row, output in enumerate(outputs) if (output.num_cached_tokens or 0) >= len(prompts[row])]
        again = {"prompt_logprobs": 0, "skip_reading_prefix_cache": True}
        for row, output in zip(hidden, self._ask([texts[row] for row in hidden], [again] * len(hidden)), strict=True):
            outputs[row] = output
        return [
            Logprobs(np.array(output.prompt_logprobs.logprobs[-len(path) :]), len(text), output.num_cached_tokens or 0)
            for output, path, text in zip(outputs, paths, texts, strict=True)
        ]

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [len(texts), E] float32; a text too long for the model is cut at its end.

        A causal LM gives the hidden state of the last token after the final norm, not normalised; a text-embedding
        model pools and normalises as it was trained to.
        """
        return self.embed_tokens(self._tokenizer(list(texts), truncation=True, max_length=self.room)["input_ids"])

    def embed_tokens(self, texts: Sequence[Tokens]) -> Tensor:
        """Embeddings [len(texts), E] float32 of texts as tokens."""
        inputs = [{"prompt_token_ids": list(tokens) or [self._tokenizer.eos_token_id]} for tokens in texts]
        outputs = self._llm.embed(inputs, lora_request=self._lora, use_tqdm=False)
        return torch.tensor([output.outputs.embedding for output in outputs], dtype=torch.float32)

    def _ask(self, prompts: Sequence[Tokens], sampling: Iterable[dict[str, Any]]) -> list[Any]:
        """Answers of one token, or as ``sampling`` says."""
        from vllm import SamplingParams

        # skip_clone: each request has parameters of its own, and copying them costs more than a small model's step.
        defaults = {"temperature": 0, "max_tokens": 1, "detokenize": False, "flat_logprobs": True, "skip_clone": True}
        inputs = [{"prompt_token_ids": list(tokens)} for tokens in prompts]
        parameters = [SamplingParams(**(defaults | one)) for one in sampling]
        outputs: list[Any] = []
        for start in range(0, len(inputs), MAX_REQUESTS):
            part = slice(start, start + MAX_REQUESTS)
            outputs += self._llm.generate(inputs[part], parameters[part], lora_request=self._lora, use_tqdm=False)
        return outputs

    def _fitted(self, template: Template, histories: Sequence[Sequence[str]], limit: int) -> list[Prompt]:
        read = self._tokenizer([template(titles) for titles in histories])["input_ids"] if histories else []
        return [
            Prompt(tokens, 0) if len(tokens) <= limit else self._cut(template, titles, limit)
            for titles, tokens in zip(histories, read, strict=True)
        ]

    def _cut(self, template: Template, titles: Sequence[str], limit: int) -> Prompt:
        text, dropped = fitted(template, titles, lambda text: len(self._tokenizer(text)["input_ids"]), limit)
        return Prompt(self._tokenizer(text)["input_ids"][-limit:], dropped)


def _arguments(
    model: Path, task: Task, config: VllmConfig, rank: int | None, gpu: bool, length: int | None
) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": str(model),
        "dtype": config.dtype or ("auto" if gpu else "float32"),
        "quantization": config.quantization,
        "max_num_seqs": config.max_num_seqs,
        "enforce_eager": _eager(config, gpu),
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "enable_prefix_caching": config.prefix_caching and task == "generate",
        "max_logprobs": -1,
        "seed": 0,
    }
    if config.max_model_len or length:
        arguments["max_model_len"] = config.max_model_len or min(length or 0, own_length(model))
    if rank:
        arguments |= {"enable_lora": True, "max_lora_rank": rank}
    if gpu:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
    else:
        arguments |= {"kv_cache_memory_bytes": config.kv_cache_memory_bytes, "block_size": config.block_size}
    return arguments | (_pooling(is_causal(model)) if task == "embed" else {}) | parsed(config.options)


def _eager(config: VllmConfig, gpu: bool) -> bool:
    if config.enforce_eager is None:
        # On a CPU, vLLM makes room for what pipeline stages hand on only while it compiles.
        return not gpu and config.pipeline_parallel_size == 1
    return config.enforce_eager and (gpu or config.pipeline_parallel_size == 1)


def _pooling(causal: bool) -> dict[str, Any]:
    if not causal:
        return {"runner": "pooling"}
    from vllm.config import PoolerConfig

    pooler = PoolerConfig(seq_pooling_type="LAST", use_activation=False)
    return {"runner": "pooling", "convert": "embed", "pooler_config": pooler}
