"""vLLM against transformers on the same teacher, in one process per engine as in the product."""

import pytest
import torch

from data_prep.reading import read_titles
from teacher_infer.config import TeachConfig
from teacher_infer.engine import is_causal
from teacher_infer.prompts import prompt

pytestmark = pytest.mark.engine
HISTORIES = [(0, 1, 2), (5,), (20, 21, 22, 23, 0)]


@pytest.fixture(scope="module")
def reference(tiny_teacher):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_teacher.teacher, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(tiny_teacher.teacher)


def test_greedy_generation_equals_transformers(tiny_teacher, reference):
    from teacher_infer.actors import generate_titles

    model, tokenizer = reference
    titles = read_titles(tiny_teacher.dataset)
    histories = [[titles[item] for item in history] for history in HISTORIES]
    answers = generate_titles(tiny_teacher.teacher, histories, TeachConfig(batch_size=2))
    for history, text in zip(histories, answers.texts, strict=True):
        inputs = tokenizer(prompt(history), return_tensors="pt").input_ids
        output = model.generate(inputs, max_new_tokens=32, do_sample=False)[0, inputs.shape[1] :]
        assert text == tokenizer.decode(output, skip_special_tokens=True)
    assert answers.dropped.tolist() == [0, 0, 0]
    assert (answers.seconds > 0).all()


def test_embedding_equals_the_last_hidden_state(tiny_teacher, reference):
    from teacher_infer.actors import embed_texts

    model, tokenizer = reference
    texts = [*read_titles(tiny_teacher.dataset)[:5], "", "x" * 10_000]
    embedded = embed_texts(tiny_teacher.teacher, texts, TeachConfig(batch_size=3)).values
    for text, embedding in zip(texts, embedded, strict=True):
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512).input_ids
        with torch.inference_mode():
            expected = model(inputs, output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(embedding, expected, atol=1e-4, rtol=1e-4)


def test_a_damaged_model_is_one_line(tiny_teacher, tmp_path, ray_local):
    import shutil

    from cluster.errors import ModelError
    from teacher_infer.actors import embed_texts

    shutil.copytree(tiny_teacher.teacher, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="vLLM cannot load") as caught:
        embed_texts(tmp_path / "broken", ["a"], TeachConfig())
    assert "\n" not in str(caught.value)


def test_a_causal_model_is_told_from_a_text_embedding_model(tiny_teacher, tiny_dataset):
    from cluster.storage import read_manifest
    from teacher_infer.locate import locate_teacher

    assert is_causal(tiny_teacher.teacher)
    assert not is_causal(locate_teacher("minilm", "embed", tiny_dataset, read_manifest(tiny_dataset)))
