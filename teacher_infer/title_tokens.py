"""The catalogue in tokens, as the teacher would answer it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from teacher_infer.prompts import response


def title_tokens(tokenizer: Any, titles: Sequence[str], most: int) -> list[list[int]]:  # noqa: ANN401
    """What the teacher would answer for each title, up to its end of text; cut to ``most`` tokens.

    Raises:
        ModelError: the tokenizer has no end of text.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ModelError("the teacher's tokenizer has no end-of-text token: titles cannot be scored")
    read = tokenizer([response(title) for title in titles], add_special_tokens=False)["input_ids"] if titles else []
    # A title may itself spell the end of text.
    return [[*[token for token in tokens if token != end][: most - 1], end] for tokens in read]


def own_length(model: Path) -> int:
    """The longest sequence that a model may have, tokens."""
    from vllm.engine.arg_utils import EngineArgs

    return int(EngineArgs(model=str(model)).create_model_config().max_model_len)
