import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from cluster.config import DeepSpeedConfig
from cluster.errors import ConfigError, ModelError, StaleInputError
from teacher_train.check import check_model
from teacher_train.config import LoraConfig, TeacherModelConfig, TrainTeacherConfig
from teacher_train.model import add_adapter, open_model, open_tokenizer, write_teacher

SMALL = TeacherModelConfig(num_layers=2, hidden_size=64, num_heads=2, vocab_size=512)
TOKENS = torch.tensor([[0, 5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def scratch(tiny_dataset):
    return TrainTeacherConfig(dataset=tiny_dataset, model=SMALL, max_tokens=128)


@pytest.fixture(scope="module")
def base(scratch, tmp_path_factory):
    """A small model's directory."""
    directory = tmp_path_factory.mktemp("base")
    tokenizer = open_tokenizer(scratch)
    torch.manual_seed(0)
    open_model(scratch, tokenizer).save_pretrained(directory / "weights")
    write_teacher(scratch, tokenizer, directory / "weights", directory / "model")
    return directory / "model"


def logits(directory, adapter=None):
    lm = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    lm = PeftModel.from_pretrained(lm, adapter) if adapter else lm
    with torch.inference_mode():
        return lm(TOKENS).logits


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


def test_a_damaged_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "unheard"}')
    for opens in (open_tokenizer, lambda config: open_model(config, None)):
        with pytest.raises(ModelError, match=r"--start-from .* is no causal language model"):
            opens(TrainTeacherConfig(start_from=tmp_path))


def test_an_architecture_with_an_attention_of_its_own_is_refused(tmp_path):
    BloomForCausalLM(BloomConfig(vocab_size=32, hidden_size=32, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"--attention varlen: BloomForCausalLM .*eager"):
        open_model(TrainTeacherConfig(start_from=tmp_path), None)


def test_rows_longer_than_a_models_window_are_refused(tmp_path):
    small = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    MistralForCausalLM(MistralConfig(sliding_window=100, **small, **heads)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"--max-tokens 101 .*window of 100"):
        open_model(TrainTeacherConfig(start_from=tmp_path, max_tokens=101), None)
    assert open_model(TrainTeacherConfig(start_from=tmp_path, max_tokens=100), None)


@pytest.mark.parametrize(("trained", "asked", "written"), [("fp32", None, 4), ("bf16", None, 2), ("fp32", "bf16", 2)])
def test_weights_are_written_in_the_format_asked_for(base, tmp_path, trained, asked, written):
    deepspeed = DeepSpeedConfig(precision=trained)
    config = TrainTeacherConfig(start_from=base, deepspeed=deepspeed, save_precision=asked)
    write_teacher(config, open_tokenizer(config), base, tmp_path)
    numbers = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_pretrained(tmp_path).parameters())
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size == pytest.approx(numbers * written, rel=0.05)
    torch.testing.assert_close(logits(tmp_path), logits(base), rtol=0, atol=0.02 if written == 2 else 0)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token == "</s>"


@pytest.fixture
def adapted(base, tmp_path):
    """The directory of an adapter that has learned something."""
    config = TrainTeacherConfig(start_from=base, lora=LoraConfig(rank=4))
    lm = open_model(config, None)
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    lm.save_pretrained(tmp_path / "adapted")
    return tmp_path / "adapted"


def test_a_merged_adapter_and_one_that_stays_apart_say_the_same(base, adapted, tmp_path):
    expected = logits(base, adapted)
    assert (expected - logits(base)).abs().max() > 0.1
    for merge in (True, False):
        config = TrainTeacherConfig(start_from=base, lora=LoraConfig(rank=4, merge=merge))
        write_teacher(config, open_tokenizer(config), adapted, tmp_path / str(merge))
    torch.testing.assert_close(logits(tmp_path / "True"), expected, rtol=0, atol=1e-5)
    assert not (tmp_path / "True" / "adapter").exists()
    torch.testing.assert_close(logits(base, tmp_path / "False" / "adapter"), expected, rtol=0, atol=0)
    assert not list((tmp_path / "False").glob("*.safetensors"))
    assert {file.name for file in (tmp_path / "False" / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_modules_that_are_not_there_are_refused(base):
    lm = AutoModelForCausalLM.from_pretrained(base)
    with pytest.raises(ConfigError, match=r"--lora\.target-modules nowhere"):
        add_adapter(lm, LoraConfig(rank=4, target_modules=("nowhere",)))


def test_only_named_modules_get_an_adapter(base):
    lm = add_adapter(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(rank=2, target_modules=("q_proj", "v_proj"))
    )
    trained = [name for name, parameter in lm.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * 2
    assert all("q_proj" in name or "v_proj" in name for name in trained)
