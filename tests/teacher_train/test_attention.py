"""Rows side by side in one batch do not see each other, whichever attention computes them."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from cluster.errors import ConfigError
from teacher_train.attention import register_varlen, varlen_attention
from teacher_train.examples import IGNORED, Example, collate

MODELS = {
    "llama": {"num_key_value_heads": 1},
    "qwen2": {"num_key_value_heads": 2},
    "gpt_neox": {},
    "gpt2": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 64, "dropout": 0.0},
}
LENGTHS = (9, 4, 7, 5, 3)


def model(kind, attention, dtype=torch.float32):
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(kind, vocab_size=32, max_position_embeddings=64, **shape, **MODELS[kind])
    register_varlen()
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in lm.parameters():  # as made, attention is too even to tell
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return lm.to(dtype)


def rows():
    generator = np.random.default_rng(0)
    made = [generator.integers(3, 32, length, dtype=np.int32) for length in LENGTHS]
    return [Example(input_ids=row, labels=np.array([IGNORED, IGNORED, *row[2:]], np.int32)) for row in made]


def losses_alone(lm, examples):
    """Loss of every labelled token, from a forward pass per row that knows nothing of batches."""
    lm.set_attn_implementation("eager")
    found = []
    for example in examples:
        logits = lm(torch.tensor(example["input_ids"][None].astype(int))).logits[0, :-1]
        labels = torch.tensor(example["labels"][1:].astype(int))
        found.append(functional.cross_entropy(logits, labels, reduction="none")[labels != IGNORED])
    return torch.cat(found)


@pytest.mark.parametrize("attention", ["varlen", "eager"])
@pytest.mark.parametrize("kind", MODELS)
def test_rows_have_the_loss_and_the_gradients_that_they_have_alone(kind, attention):
    lm, examples = model(kind, attention), rows()
    loss = lm(**collate([examples[:2], examples[2:]], masked=attention == "eager")).loss
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in lm.named_parameters()}
    lm.zero_grad()
    alone = losses_alone(lm, examples).mean()
    alone.backward()
    assert loss.item() == pytest.approx(alone.item(), rel=1e-5)
    for name, parameter in lm.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_the_loss_tells_whether_rows_see_each_other():
    lm, examples = model("llama", "varlen"), rows()
    batch = collate([examples])
    ends = torch.tensor([0, sum(LENGTHS)], dtype=torch.int32)
    crossing = lm(**batch | {"cu_seq_lens_q": ends, "max_length_q": sum(LENGTHS)}).loss
    assert abs(crossing.item() - lm(**batch).loss.item()) > 1e-2


def test_half_precision_gives_about_the_same():
    examples = [rows()]
    full, half = (
        model("llama", "varlen", dtype)(**collate(examples)).loss for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.item() == pytest.approx(full.item(), rel=0.05)


def attend(**others):
    query = torch.zeros(1, 2, 8, 4)
    return varlen_attention(torch.nn.Identity(), query, query, query, None, **others)


@pytest.mark.parametrize("others", [{"softcap": 30.0}, {"s_aux": 1.0}], ids=str)
def test_more_than_causal_attention_is_refused(others):
    with pytest.raises(ConfigError, match=rf"--attention varlen.*{next(iter(others))}.*--attention eager"):
        attend(cu_seq_lens_q=torch.tensor([0, 5, 8]), **others)


def test_an_architecture_that_does_not_say_where_rows_end_is_refused():
    with pytest.raises(ConfigError, match="--attention eager"):
        attend()


def test_half_precision_on_a_gpu_takes_the_kernel_for_rows_of_any_length():
    """Shapes and devices only: fake tensors stand for a GPU."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():

        def on_gpu(*shape, dtype=torch.bfloat16):
            return FakeTensor(mode, torch.empty(*shape, dtype=dtype, device="meta"), torch.device("cuda", 0))

        query, key = on_gpu(1, 8, 20, 32), on_gpu(1, 2, 20, 32)
        ends = on_gpu(4, dtype=torch.int32)
        with _Called() as called:
            output, _ = varlen_attention(
                torch.nn.Identity(), query, key, key, None, scaling=0.1, cu_seq_lens_q=ends, max_length_q=9
            )
    assert output.shape == (1, 20, 8, 32)
    assert output.device.type == "cuda"
    assert called.operations == ["torch_attn._varlen_attn.default"]
    assert called.causal


class _Called(TorchDispatchMode):
    def __enter__(self):
        self.operations = []
        return super().__enter__()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if "attn" in str(operation) or "attention" in str(operation):
            self.operations.append(str(operation))
            self.causal = args[7]
        return operation(*args, **kwargs or {})
