"""Options of vLLM that are passed on."""

import pytest
from pydantic import ValidationError

from teacher_infer.config import VllmConfig, parsed


def test_options_are_pairs_or_a_mapping():
    pairs = VllmConfig(options=("swap_space=4", "async_scheduling=true", "kv_cache_dtype=fp8", 'a={"b": [1]}'))
    values = {"swap_space": 4, "async_scheduling": True, "kv_cache_dtype": "fp8", "a": {"b": [1]}}
    mapping = VllmConfig.model_validate({"options": values})
    assert parsed(pairs.options) == parsed(mapping.options) == values


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("trust_remote_code=true", "cannot be given"),
        ("model=other", "cannot be given"),
        ("dtype=float16", "an option of its own, --vllm.dtype"),
        ("swap_space", "is not NAME=VALUE"),
        ("a=[", "is not YAML"),
    ],
)
def test_an_option_that_may_not_be_given_is_named(option, why):
    with pytest.raises(ValidationError, match=why):
        VllmConfig(options=(option,))
