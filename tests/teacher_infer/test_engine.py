"""vLLM against transformers on the same teacher, in a process of their own as in the product."""

import json
import shutil

import pytest
import ray
import torch
from safetensors.torch import save_file

from cluster.errors import ModelError, StaleInputError
from data_prep.reading import read_titles
from teacher_infer.config import VllmConfig
from teacher_infer.engine import VllmEngine
from teacher_infer.model_files import is_causal, lora_rank
from teacher_infer.prompts import prompt

pytestmark = pytest.mark.engine
HISTORIES = [(0, 1, 2), (5,), (20, 21, 22, 23, 0)]


@pytest.fixture(scope="module")
def reference(tiny_teacher):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_teacher.teacher, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(tiny_teacher.teacher)


def generated(model, tokenizer, text, **options):
    inputs = tokenizer(text, return_tensors="pt").input_ids
    output = model.generate(inputs, max_new_tokens=32, do_sample=False, **options)[0, inputs.shape[1] :]
    return tokenizer.decode(output, skip_special_tokens=True)


def generate(engine, histories, max_new_tokens, beams=1):
    return engine.generate(histories, max_new_tokens, beams)


def embed(engine, texts):
    return engine.embed(texts)


def test_greedy_generation_equals_transformers(tiny_teacher, generator, reference):
    titles = read_titles(tiny_teacher.dataset)
    histories = [[titles[item] for item in history] for history in HISTORIES]
    answers = generator(generate, histories, 32)
    assert [answer.text for answer in answers] == [generated(*reference, prompt(history)) for history in histories]
    assert [answer.dropped for answer in answers] == [0, 0, 0]
    assert all(answer.prompt_tokens > answer.new_tokens > 1 for answer in answers)


def test_beam_generation_equals_transformers(tiny_teacher, generator, reference):
    titles = read_titles(tiny_teacher.dataset)
    histories = [[titles[item] for item in history] for history in HISTORIES]
    answers = generator(generate, histories, 32, 3)
    expected = [generated(*reference, prompt(history), num_beams=3) for history in histories]
    assert [answer.text for answer in answers] == expected
    assert all(answer.prompt_tokens > answer.new_tokens > 1 for answer in answers)


def test_more_beams_than_vllm_s_own_limit_of_logprobs(tiny_teacher, generator):
    titles = read_titles(tiny_teacher.dataset)
    (answer,) = generator(generate, [titles[:3]], 16, 80)
    assert answer.new_tokens > 1


@ray.remote(num_cpus=0, max_calls=1)
def open_engine(model, config, length=None):
    engine = VllmEngine(model, "generate", config, length=length)
    return engine.room, engine.generate([["Red"]], 8)[0].text


def test_a_model_of_many_positions_has_the_room_that_is_needed(tiny_teacher, tmp_path):
    """131,072 positions would not fit into this cache."""
    model = tmp_path / "long"
    shutil.copytree(tiny_teacher.teacher, model)
    for name, field in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        settings = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps(settings | {field: 131_072}))
    config = VllmConfig(kv_cache_memory_bytes=4 << 20, options=("max_num_batched_tokens=1024",))
    room, text = ray.get(open_engine.remote(model, config, 100))
    assert room == 100
    assert text


def test_an_option_that_vllm_does_not_know_is_refused_in_its_words(tiny_teacher):
    config = VllmConfig(options=("cosy_cache=true",))
    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        ray.get(open_engine.remote(tiny_teacher.teacher, config))
    assert isinstance(caught.value.cause, ModelError)
    assert "unexpected keyword argument 'cosy_cache'" in str(caught.value.cause)


def test_oldest_titles_go_where_the_model_has_no_room(generator):
    histories = [["Red Castle"] * 40, ["Red Castle"]]
    long, short = generator(generate, histories, 512 - 120)
    assert long.dropped > 0 == short.dropped
    assert long.prompt_tokens <= 120
    long, short = generator(lambda engine, asked: engine.history_texts(asked), [["Red Castle"] * 400, ["Red Castle"]])
    assert long.dropped > 0 == short.dropped
    assert len(short.tokens) < 400 < len(long.tokens) <= 512


def test_embedding_equals_the_last_hidden_state(tiny_teacher, engines, reference):
    model, tokenizer = reference
    texts = [*read_titles(tiny_teacher.dataset)[:5], "", "x" * 10_000]
    embedded = engines("embed", embed, texts)
    for text, embedding in zip(texts, embedded, strict=True):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512).input_ids
        with torch.inference_mode():
            expected = model(inputs, output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(embedding, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, reference):
    """A LoRA adapter of random weights for two layers, and the model with the same merged into it."""
    import copy

    model = copy.deepcopy(reference[0])
    directory = tmp_path_factory.mktemp("adapter")
    rank, alpha, generator = 3, 12, torch.Generator().manual_seed(0)
    weights = {}
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"):
        layer = model.get_submodule(name)
        down = torch.randn(rank, layer.in_features, generator=generator) * 0.3
        up = torch.randn(layer.out_features, rank, generator=generator) * 0.3
        layer.weight.data += alpha / rank * up @ down
        weights |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
    save_file(weights, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q_proj", "down_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory, model


def test_an_adapter_generates_and_embeds_like_the_merged_model(tiny_teacher, engines, reference, adapter):
    directory, merged = adapter
    base, tokenizer = reference
    titles = read_titles(tiny_teacher.dataset)
    expected = generated(merged, tokenizer, prompt(titles[:3]))
    assert expected != generated(base, tokenizer, prompt(titles[:3]))
    (answer,) = engines("generate", generate, [titles[:3]], 32, lora=directory)
    assert answer.text == expected
    tokens = tokenizer(titles[0], return_tensors="pt").input_ids
    with torch.inference_mode():
        hidden = merged(tokens, output_hidden_states=True).hidden_states[-1][0, -1]
    (embedding,) = engines("embed", embed, titles[:1], lora=directory)
    torch.testing.assert_close(embedding, hidden, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("rank", "room"), [({"r": 3}, 8), ({"r": 8, "rank_pattern": {"q_proj": 40}}, 64)])
def test_the_adapters_largest_rank_is_made_room_for(tmp_path, rank, room):
    (tmp_path / "adapter_config.json").write_text(json.dumps(rank))
    assert lora_rank(tmp_path) == room


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"r": 513}'])
def test_an_adapter_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(StaleInputError, match="holds no LoRA adapter"):
        lora_rank(tmp_path)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError):
        lora_rank(tmp_path)


def test_a_damaged_model_is_one_line(tiny_teacher, tmp_path, engines):
    shutil.copytree(tiny_teacher.teacher, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])

    @ray.remote(num_cpus=0, max_calls=1)
    def load() -> None:
        VllmEngine(tmp_path / "broken", "embed", VllmConfig())

    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        ray.get(load.remote())
    assert isinstance(caught.value.cause, ModelError)
    assert str(caught.value.cause).startswith("vLLM cannot load")
    assert "\n" not in str(caught.value.cause)


def test_a_causal_model_is_told_from_a_text_embedding_model(tiny_teacher, tiny_dataset):
    from cluster.storage import read_manifest
    from teacher_infer.locate import locate_teacher

    assert is_causal(tiny_teacher.teacher)
    assert not is_causal(locate_teacher("minilm", "embed", tiny_dataset, read_manifest(tiny_dataset)).model)
