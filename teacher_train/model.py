"""The model that becomes a teacher: made from scratch or opened to be trained further, and written in the end."""

import shutil
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from cluster.errors import ConfigError, ModelError
from cluster.files import local_copy
from data_prep.reading import read_titles
from teacher_infer.locate import ADAPTER_FOLDER
from teacher_train.attention import VARLEN, register_varlen
from teacher_train.config import LoraConfig, TrainTeacherConfig
from teacher_train.tokenizer import learn_tokenizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def open_tokenizer(config: TrainTeacherConfig) -> Any:  # noqa: ANN401  # a PreTrainedTokenizer
    """The tokenizer at ``start_from``, or one learned from the catalogue's titles; with a padding token.

    Raises:
        ModelError: the tokenizer cannot be read.
    """
    if config.start_from is None:
        return learn_tokenizer(read_titles(config.dataset), config.model.vocab_size)
    try:
        tokenizer = AutoTokenizer.from_pretrained(_start(config))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(_unreadable(config.start_from, error)) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def open_model(config: TrainTeacherConfig, tokenizer: Any) -> Any:  # noqa: ANN401  # a PreTrainedModel or PeftModel
    """The model to train, with adapters if these are asked for.

    Where ``TrainingArguments`` with ZeRO stage 3 exist, weights are partitioned as they are made or read.

    Raises:
        ConfigError: the architecture cannot do what is asked.
        ModelError: the weights cannot be read.
    """
    register_varlen()
    asked = {"dtype": DTYPES[config.deepspeed.precision], "attn_implementation": config.attention}
    if config.start_from is None:
        lm = AutoModelForCausalLM.from_config(_llama(config, tokenizer), **asked)
    else:
        try:
            lm = AutoModelForCausalLM.from_pretrained(_start(config), **asked)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise ModelError(_unreadable(config.start_from, error)) from error
    if config.attention == VARLEN and not lm._supports_attention_backend:
        raise ConfigError(f"--attention {VARLEN}: {type(lm).__name__} has an attention of its own: take eager")
    window = getattr(lm.config, "sliding_window", None)
    if window and window < config.max_tokens:
        raise ConfigError(f"--max-tokens {config.max_tokens} is more than the model's window of {window}: lower it")
    if config.gradient_checkpointing and not lm.supports_gradient_checkpointing:
        raise ConfigError(f"--gradient-checkpointing True: {type(lm).__name__} cannot")
    return add_adapter(lm, config.lora) if config.lora.rank else lm


def add_adapter(lm: Any, config: LoraConfig) -> Any:  # noqa: ANN401  # PreTrainedModel to PeftModel
    """Freeze ``lm`` and give it adapters, which leave its output as it is until they are trained.

    Raises:
        ConfigError: the model has no module of a name in ``target_modules``.
    """
    modules = config.target_modules
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear" if modules == ("all-linear",) else list(modules),
        task_type=peft.TaskType.CAUSAL_LM,
    )
    try:
        return peft.get_peft_model(lm, settings)
    except ValueError as error:
        raise ConfigError(f"--lora.target-modules {' '.join(modules)}: {' '.join(str(error).split())[:200]}") from error


def write_teacher(config: TrainTeacherConfig, tokenizer: Any, weights: Path, directory: Path) -> None:  # noqa: ANN401
    """Write the teacher as it is handed over: adapters in its weights, if they are to be merged.

    Args:
        config: of the training.
        tokenizer: of the model.
        weights: directory of the trained model, or of the trained adapters.
        directory: to write to.
    """
    tokenizer.save_pretrained(directory)
    if config.lora.rank and not config.lora.merge:
        AutoConfig.from_pretrained(_start(config)).save_pretrained(directory)
        (directory / ADAPTER_FOLDER).mkdir()
        for file in weights.glob("adapter_*"):
            shutil.copy(file, directory / ADAPTER_FOLDER)
        return
    dtype = DTYPES[config.save_precision or config.deepspeed.precision]
    if config.lora.rank:
        base = AutoModelForCausalLM.from_pretrained(_start(config), dtype=torch.float32)
        lm = peft.PeftModel.from_pretrained(base, weights).merge_and_unload().to(dtype)
    else:
        lm = AutoModelForCausalLM.from_pretrained(weights, dtype=dtype)
    lm.save_pretrained(directory)


def _start(config: TrainTeacherConfig) -> Path | None:
    return local_copy(config.start_from) if config.start_from else None


def _llama(config: TrainTeacherConfig, tokenizer: Any) -> LlamaConfig:  # noqa: ANN401
    model = config.model
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        intermediate_size=model.hidden_size * 3,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        num_key_value_heads=model.num_heads,
        max_position_embeddings=config.max_tokens,
        tie_word_embeddings=True,
        initializer_range=model.hidden_size**-0.5 / 2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _unreadable(directory: Path, error: Exception) -> str:
    return f"--start-from {directory} is no causal language model: {' '.join(str(error).split())[:200]}"
