"""Adapters on a small model, without Ray."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from cluster.config import DeepSpeedConfig
from cluster.engine import Engine
from cluster.errors import ConfigError
from teacher_train.config import LoraConfig, TeacherModelConfig, TrainTeacherConfig
from teacher_train.examples import IGNORED, Example, collate
from teacher_train.lora import add_adapter, merge_adapter, write_adapter
from teacher_train.model import ResponseLoss, checkpoint_activations, open_model, write_start, write_weights

LORA = LoraConfig(rank=4, dropout=0.0)
TOKENS = torch.tensor([[0, 5, 6, 7, 8, 9]])


@pytest.fixture
def base(tiny_dataset, tmp_path):
    """A small model's directory."""
    model = TeacherModelConfig(num_layers=2, hidden_size=64, num_heads=2, vocab_size=512)
    directory = tmp_path / "base"
    write_start(TrainTeacherConfig(dataset=tiny_dataset, model=model, max_tokens=128), directory)
    torch.manual_seed(0)
    lm = open_model(None, directory)
    write_weights(lm, dict(lm.named_parameters()), directory)
    return directory


def batch():
    tokens = TOKENS[0].tolist()
    return collate([Example(tokens, [IGNORED, *tokens[1:]], (len(tokens),))], padding=2)


def train(engine, steps=3):
    for _ in range(steps):
        engine.backward(engine(*batch()))
        engine.step()


def adapted(base, config=LORA, recompute=False, **settings):
    torch.manual_seed(1)
    lm = open_model(base, base)
    if recompute:
        checkpoint_activations(lm)
    module = ResponseLoss(add_adapter(lm, config))
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    return Engine(module, optimizer, DeepSpeedConfig(**settings), 1, keep_frozen=False)


def weights_of(engine):
    return {name.removeprefix("lm."): value for name, value in engine.state_dict().items()}


def logits(lm):
    with torch.inference_mode():
        return lm.eval()(TOKENS).logits


@pytest.mark.engine
def test_the_adapter_acts_the_base_stays_and_merging_changes_nothing(base, tmp_path):
    engine = adapted(base)
    without = logits(open_model(base, base))
    torch.testing.assert_close(logits(engine.module.lm), without)
    train(engine)
    write_adapter(engine.module.lm, weights_of(engine), tmp_path)
    loaded = PeftModel.from_pretrained(open_model(base, base), tmp_path / "adapter")
    with_adapter = logits(loaded)
    torch.testing.assert_close(with_adapter, logits(engine.module.lm))
    assert (with_adapter - without).abs().max() > 0.1
    for lm in (loaded, engine.module.lm):
        with lm.disable_adapter():
            torch.testing.assert_close(logits(lm), without, rtol=0, atol=0)
    assert {file.name for file in (tmp_path / "adapter").iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    merge_adapter(open_model(base, base), tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(merged), with_adapter, rtol=0, atol=1e-5)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.engine
@pytest.mark.parametrize(
    "settings", [{}, {"zero_stage": 1}, {"zero_stage": 2, "precision": "bf16"}, {"zero_stage": 3}], ids=str
)
def test_only_adapters_are_trained_and_kept(base, tmp_path, settings):
    engine = adapted(base, recompute=True, **settings)
    train(engine)
    engine.save(tmp_path / "checkpoint", {"step": 3})
    weights = weights_of(engine)
    assert all("lora_" in name for name in weights)
    # Weight, two moments and the master copy of the adapters, and little else.
    size = sum(file.stat().st_size for file in (tmp_path / "checkpoint").rglob("*") if file.is_file())
    adapters = sum(value.numel() * 4 for value in weights.values())
    assert 3 * adapters < size < 5 * adapters + 200_000
    again = adapted(base, recompute=True, **settings)
    assert again.load(tmp_path / "checkpoint") == {"step": 3}
    torch.testing.assert_close(weights_of(again), weights, rtol=0, atol=0)
    train(engine, 1)
    train(again, 1)
    torch.testing.assert_close(weights_of(again), weights_of(engine))
    assert any((weights_of(engine)[name] - weights[name]).abs().max() > 1e-4 for name in weights)


def test_modules_that_are_not_there_are_refused(base):
    with pytest.raises(ConfigError, match=r"--lora\.target-modules nowhere"):
        add_adapter(open_model(base, base), LoraConfig(rank=4, target_modules=("nowhere",)))


def test_only_named_modules_get_an_adapter(base):
    lm = add_adapter(open_model(base, base), LoraConfig(rank=2, target_modules=("q_proj", "v_proj")))
    trained = [name for name, parameter in lm.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * 2
    assert all("q_proj" in name or "v_proj" in name for name in trained)
