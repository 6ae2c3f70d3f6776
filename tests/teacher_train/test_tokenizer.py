import pytest
from transformers import AutoTokenizer

from teacher_infer.prompts import prompt, response
from teacher_train.tokenizer import BOS, EOS, PAD, learn_tokenizer
from tests.teacher_fixtures import TITLES


@pytest.fixture(scope="module")
def tokenizer():
    return learn_tokenizer(TITLES, 512)


@pytest.mark.parametrize(
    "text", ["Red Castle", "  two  spaces ", "Ünïcödé 東京 🎮", "quote ' and\nline", prompt(TITLES[:3])]
)
def test_every_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_texts_start_with_the_start_token_and_do_not_end(tokenizer):
    ids = tokenizer("Red Castle")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids


def test_prompt_words_are_whole_tokens(tokenizer):
    assert len(tokenizer(prompt(["Red Castle"]))["input_ids"]) < 30


def test_prompt_and_response_join_as_they_are_generated(tokenizer):
    joined = tokenizer(prompt(TITLES[:2]) + response(TITLES[2]))["input_ids"]
    apart = tokenizer(prompt(TITLES[:2]))["input_ids"]
    assert joined == apart + tokenizer(response(TITLES[2]), add_special_tokens=False)["input_ids"]


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(prompt(TITLES))["input_ids"] == tokenizer(prompt(TITLES))["input_ids"]
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == (BOS, EOS, PAD)


def test_same_titles_same_tokens(tokenizer):
    assert learn_tokenizer(TITLES, 512).get_vocab() == tokenizer.get_vocab()
