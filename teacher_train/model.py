"""The model that becomes a teacher: made from scratch, or opened to be trained further."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.utils.logging import disable_progress_bar

from cluster.errors import ConfigError, ModelError, StaleInputError
from data_prep.reading import read_titles
from teacher_infer.locate import ADAPTER_FOLDER
from teacher_train.config import TeacherModelConfig, TrainTeacherConfig
from teacher_train.examples import IGNORED
from teacher_train.tokenizer import learn_tokenizer

HEAD_SIZES = (32, 64)  # what vLLM runs on every device


def check_model(config: TrainTeacherConfig) -> None:
    """Refuse a model that cannot be trained or served, before any work starts.

    Raises:
        ConfigError: the head size is not one that vLLM serves, or there is nothing to adapt.
        StaleInputError: there is no model at ``start_from``.
    """
    model, start = config.model, config.start_from
    if start is not None:
        if not (start / "config.json").is_file():
            raise StaleInputError(f"--start-from {start} holds no model (no config.json): name an HF model directory")
        if (start / ADAPTER_FOLDER).is_dir():
            raise StaleInputError(f"--start-from {start} holds only an adapter: train that one with --lora.merge True")
    elif config.lora.rank:
        raise ConfigError(f"--lora.rank {config.lora.rank} adapts a model that is there: name one with --start-from")
    elif model.hidden_size % model.num_heads or model.hidden_size // model.num_heads not in HEAD_SIZES:
        raise ConfigError(
            f"--model.hidden-size {model.hidden_size} over --model.num-heads {model.num_heads} gives heads of size "
            f"{model.hidden_size / model.num_heads:g}: vLLM serves {' and '.join(map(str, HEAD_SIZES))}"
        )


def write_start(config: TrainTeacherConfig, directory: Path) -> Any:  # noqa: ANN401  # a PreTrainedTokenizer
    """Write tokenizer and model config of the teacher to be; the same on every worker.

    Returns:
        the tokenizer, with a padding token.

    Raises:
        ModelError: the model at ``start_from`` cannot be read.
    """
    if config.start_from is None:
        tokenizer = learn_tokenizer(read_titles(config.dataset), config.model.vocab_size)
        model = _llama(config.model, tokenizer, config.max_tokens)
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(config.start_from)
            model = AutoConfig.from_pretrained(config.start_from)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(_unreadable(config.start_from, error)) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)
    return tokenizer


def open_model(start_from: Path | None, directory: Path) -> Any:  # noqa: ANN401  # a PreTrainedModel
    """The model in float32: the weights at ``start_from``, or random ones for the config in ``directory``.

    Raises:
        ModelError: the weights cannot be read.
    """
    if start_from is None:
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.float32)
    try:
        return AutoModelForCausalLM.from_pretrained(start_from, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(_unreadable(start_from, error)) from error


def write_weights(lm: Any, weights: dict[str, Tensor], directory: Path) -> None:  # noqa: ANN401
    """Write the model ``lm`` with the values in ``weights``."""
    disable_progress_bar()
    lm.save_pretrained(directory, state_dict={name: weights[name] for name in lm.state_dict() if name in weights})


def checkpoint_activations(lm: Any) -> None:  # noqa: ANN401
    """Let ``lm`` compute the activations of each layer anew in the backward pass instead of keeping them.

    Raises:
        ConfigError: the architecture cannot.
    """
    try:
        lm.gradient_checkpointing_enable()
    except ValueError as error:
        raise ConfigError(f"--gradient-checkpointing True: {error}") from error


class ResponseLoss(nn.Module):
    """A causal LM that returns its loss; logits are computed only where the next token has a label.

    Rows packed into one sequence see positions and a 4-D attention mask of their own, which every architecture of
    transformers takes under its ``eager`` and ``sdpa`` attention.
    """

    def __init__(self, lm: Any) -> None:  # noqa: ANN401  # PreTrainedModel or PeftModel
        super().__init__()
        self.lm = lm

    def forward(self, tokens_BL: Tensor, labels_BL: Tensor, segments_BL: Tensor) -> Tensor:
        """Mean cross-entropy, in nats, over the labelled tokens of a :class:`~teacher_train.examples.Batch`.

        The first token of a row has no label: what stands before it is padding or another row.
        """
        labelled_C = (labels_BL[:, 1:] != IGNORED).any(0).nonzero().flatten()
        output = self.lm(
            input_ids=tokens_BL,
            attention_mask=attention_mask(segments_BL, self.lm.dtype),
            position_ids=positions(segments_BL),
            logits_to_keep=labelled_C,
            use_cache=False,
        )
        labels_BC = labels_BL[:, labelled_C + 1]
        return functional.cross_entropy(output.logits.flatten(0, 1).float(), labels_BC.flatten(), ignore_index=IGNORED)


def positions(segments_BL: Tensor) -> Tensor:
    """Place [B, L] of every token within its row, from 0."""
    columns_L = torch.arange(segments_BL.shape[1], device=segments_BL.device)
    starts_BL = torch.ones_like(segments_BL, dtype=torch.bool)
    starts_BL[:, 1:] = segments_BL[:, 1:] != segments_BL[:, :-1]
    return columns_L - (columns_L * starts_BL).cummax(1).values


def attention_mask(segments_BL: Tensor, dtype: torch.dtype) -> Tensor:
    """What tokens may attend to: [B, L] int64 of 0 and 1 where each sequence is one row, else [B, 1, L, L] to be added.

    The latter is 0 from a token back to the start of its row, and the lowest number of ``dtype`` everywhere else.
    """
    if segments_BL.max() <= 1:
        return segments_BL
    allowed_BLL = (segments_BL[:, :, None] == segments_BL[:, None, :]).tril()
    zeros_BLL = torch.zeros(allowed_BLL.shape, dtype=dtype, device=segments_BL.device)
    return zeros_BLL.masked_fill(~allowed_BLL, torch.finfo(dtype).min)[:, None]


def _llama(model: TeacherModelConfig, tokenizer: Any, max_tokens: int) -> LlamaConfig:  # noqa: ANN401
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        intermediate_size=model.hidden_size * 3,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        num_key_value_heads=model.num_heads,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        initializer_range=model.hidden_size**-0.5 / 2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _unreadable(directory: Path, error: Exception) -> str:
    return f"--start-from {directory} is no causal language model: {' '.join(str(error).split())[:200]}"
