import pyarrow as pa
import pytest
import torch

from data_prep.reading import read_rows
from data_prep.schema import sequence_files
from teacher_infer.prompts import prompt, response
from teacher_train.examples import IGNORED, Slice, collate, encode, read_slice
from teacher_train.tokenizer import learn_tokenizer
from tests.teacher_fixtures import ROWS, TITLES


@pytest.fixture(scope="module")
def tokenizer():
    return learn_tokenizer(TITLES, 512)


def rows(*pairs):
    return pa.table({"history": [history for history, _ in pairs], "target": [target for _, target in pairs]})


def test_only_the_response_and_the_end_of_text_have_a_loss(tokenizer):
    (example,), dropped = encode(rows(([0, 1], 2)), TITLES, tokenizer, 256, "response")
    kept = [token for token in example["labels"] if token != IGNORED]
    assert tokenizer.decode(example["input_ids"]) == f"<s>{prompt(TITLES[:2])}{response(TITLES[2])}</s>"
    assert tokenizer.decode(kept) == f"{response(TITLES[2])}</s>"
    assert example["input_ids"][-len(kept) :].tolist() == kept
    assert dropped == 0


def test_titles_of_the_history_can_have_one_too(tokenizer):
    (example,), _ = encode(rows(([0, 1], 2)), TITLES, tokenizer, 256, "titles")
    kept = [token for token in example["labels"] if token != IGNORED]
    assert tokenizer.decode(kept) == f"{response(TITLES[0])},{response(TITLES[1])}{response(TITLES[2])}</s>"


def test_rows_too_long_lose_their_oldest_titles(tokenizer):
    full = encode(rows((list(range(10)), 11)), TITLES, tokenizer, 512, "response").examples[0]
    (example,), dropped = encode(rows((list(range(10)), 11)), TITLES, tokenizer, len(full["input_ids"]) - 1, "response")
    assert dropped == 1
    assert tokenizer.decode(example["input_ids"]) == f"<s>{prompt(TITLES[1:10])}{response(TITLES[11])}</s>"


def test_an_endless_title_is_cut_in_prompt_and_response(tokenizer):
    titles = ["y" * 10_000, "Red Castle"]
    examples, _ = encode(rows(([0], 1), ([1], 0)), titles, tokenizer, 128, "response")
    assert all(len(example["input_ids"]) <= 128 for example in examples)
    assert all(example["input_ids"][-1] == tokenizer.eos_token_id for example in examples)


def test_a_batch_holds_rows_one_after_another_and_logits_only_where_there_is_a_loss(tokenizer):
    examples = encode(rows(([0], 1), ([1, 2, 3], 4), ([5], 6)), TITLES, tokenizer, 256, "response").examples
    batch = collate([examples[:2], examples[2:]])
    lengths = [len(example["input_ids"]) for example in examples]
    assert batch["input_ids"].tolist() == [[token for example in examples for token in example["input_ids"]]]
    assert batch["position_ids"].tolist() == [[place for length in lengths for place in range(length)]]
    assert batch["cu_seq_lens_q"].diff().tolist() == lengths
    labelled = [label for example in examples for label in example["labels"] if label != IGNORED]
    assert batch["shift_labels"].tolist() == [labelled]
    assert batch["input_ids"][0, batch["logits_to_keep"] + 1].tolist() == labelled


def test_under_the_mask_a_token_sees_its_own_row_up_to_itself(tokenizer):
    examples = encode(rows(([0], 1), ([1, 2, 3], 4)), TITLES, tokenizer, 256, "response").examples
    first, second = (len(example["input_ids"]) for example in examples)
    seen = collate([examples], masked=True)["attention_mask"][0, 0] == 0
    assert torch.equal(seen, torch.block_diag(torch.ones(first, first), torch.ones(second, second)).tril() > 0)


@pytest.mark.parametrize(("world", "sample"), [(1, None), (3, None), (2, 21)])
def test_ranks_share_the_rows_without_overlap(tiny_dataset, world, sample):
    parts = [read_slice(tiny_dataset, "train", Slice(rank, world, sample, 0)).to_pylist() for rank in range(world)]
    total = min(sample or ROWS["train"], ROWS["train"])
    assert {len(part) for part in parts} == {total // world}
    tables = [read_rows(file).select(["history", "target"]) for file in sequence_files(tiny_dataset, "train")]
    everything = pa.concat_tables(tables).to_pylist()
    for row in [row for part in parts for row in part]:
        everything.remove(row)  # fails if two ranks hold the same row
