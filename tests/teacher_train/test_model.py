import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from cluster.errors import ConfigError, StaleInputError
from teacher_train.config import LoraConfig, TeacherModelConfig, TrainTeacherConfig
from teacher_train.examples import IGNORED, Example, collate
from teacher_train.model import (
    ResponseLoss,
    check_model,
    checkpoint_activations,
    open_model,
    positions,
    write_start,
    write_weights,
)
from teacher_train.packing import joined

SMALL = TeacherModelConfig(num_layers=2, hidden_size=64, num_heads=2, vocab_size=512)


@pytest.fixture
def started(tiny_dataset, tmp_path):
    config = TrainTeacherConfig(dataset=tiny_dataset, model=SMALL, max_tokens=128)
    write_start(config, tmp_path)
    torch.manual_seed(0)
    return tmp_path, open_model(None, tmp_path).eval()


def examples():
    first = Example([0, 5, 6, 7, 1], [IGNORED, IGNORED, IGNORED, 7, 1], (5,))
    return [first, Example([0, 9, 1], [IGNORED, 9, 1], (3,))]


@pytest.mark.parametrize(("width", "heads"), [(128, 8), (100, 3), (256, 2)])
def test_head_sizes_that_vllm_does_not_serve_are_refused(width, heads):
    with pytest.raises(ConfigError, match="serves 32 and 64"):
        check_model(TrainTeacherConfig(model=TeacherModelConfig(hidden_size=width, num_heads=heads)))


def test_a_missing_model_to_start_from_is_refused(tmp_path):
    with pytest.raises(StaleInputError, match=r"--start-from.*config\.json"):
        check_model(TrainTeacherConfig(start_from=tmp_path))


def test_an_adapter_needs_a_model_with_weights(tmp_path):
    with pytest.raises(ConfigError, match=r"--lora\.rank 4.*--start-from"):
        check_model(TrainTeacherConfig(lora=LoraConfig(rank=4)))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter").mkdir()
    with pytest.raises(StaleInputError, match=r"only an adapter.*--lora\.merge True"):
        check_model(TrainTeacherConfig(start_from=tmp_path))


def test_loss_is_the_mean_over_labelled_tokens(started):
    _, lm = started
    losses = []
    for example in examples():
        logits = lm(torch.tensor([example.tokens])).logits[0, :-1]
        losses += functional.cross_entropy(
            logits, torch.tensor(example.labels[1:]), ignore_index=IGNORED, reduction="none"
        )[torch.tensor(example.labels[1:]) != IGNORED].tolist()
    loss = ResponseLoss(lm)(*collate(examples(), padding=2))
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_padding_does_not_change_the_loss(started):
    _, lm = started
    batch = collate(examples(), padding=2)
    longer = [functional.pad(part, (7, 0), value=value) for part, value in zip(batch, (2, IGNORED, 0), strict=True)]
    assert ResponseLoss(lm)(*longer).item() == pytest.approx(ResponseLoss(lm)(*batch).item(), rel=1e-5)


MODELS = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "gpt_neox": {},
    "gpt2": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 64, "dropout": 0.0},
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", MODELS)
def test_packed_rows_have_the_loss_they_have_alone(kind, attention):
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model(kind, vocab_size=32, max_position_embeddings=64, **shape, **MODELS[kind])
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in lm.parameters():  # as made, attention is too even to tell
            parameter.add_(torch.randn_like(parameter) * 0.3)
    rows = [random_row(length) for length in (9, 4, 7, 5, 3)]
    alone = ResponseLoss(lm)(*collate(rows, padding=2))
    packed = collate([joined(rows[:2]), joined(rows[2:])], padding=2)
    assert packed.tokens.shape == (2, 15)
    loss = ResponseLoss(lm)(*packed)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-5)
    crossing = packed._replace(segments=packed.segments.clamp(max=1))
    assert abs(ResponseLoss(lm)(*crossing).item() - alone.item()) > 1e-3


def random_row(length):
    tokens = torch.randint(3, 32, (length,)).tolist()
    return Example(tokens, [IGNORED, IGNORED, *tokens[2:]], (length,))


def test_positions_start_anew_with_every_row():
    segments = torch.tensor([[0, 0, 1, 1, 1, 2, 2], [1, 1, 1, 2, 3, 3, 3]])
    at = positions(segments)
    assert at[segments > 0].tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 0, 0, 1, 2]


def test_recomputed_activations_give_the_same_gradients(started):
    _, lm = started
    calls = []
    lm.train().model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))

    def gradients():
        lm.zero_grad()
        ResponseLoss(lm)(*collate(examples(), padding=2)).backward()
        return [parameter.grad.clone() for parameter in lm.parameters()]

    kept = gradients()
    assert len(calls) == 1
    checkpoint_activations(lm)
    torch.testing.assert_close(gradients(), kept)
    assert len(calls) == 3


def test_written_weights_load_again(started):
    directory, lm = started
    with torch.no_grad():
        lm.model.norm.weight.fill_(2)
    write_weights(lm, dict(lm.named_parameters()), directory)
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    tokens = torch.tensor([[0, 5, 6]])
    torch.testing.assert_close(loaded(tokens).logits, lm(tokens).logits)
