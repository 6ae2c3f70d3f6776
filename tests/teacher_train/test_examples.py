import pyarrow as pa
import pytest

from data_prep.reading import read_rows
from data_prep.schema import sequence_files
from teacher_infer.prompts import prompt, response
from teacher_train.examples import IGNORED, Slice, batches, collate, encode, read_slice
from teacher_train.tokenizer import learn_tokenizer
from tests.teacher_fixtures import ROWS, TITLES


@pytest.fixture(scope="module")
def tokenizer():
    return learn_tokenizer(TITLES, 512)


def rows(*pairs):
    return pa.table({"history": [history for history, _ in pairs], "target": [target for _, target in pairs]})


def test_only_the_response_and_the_end_of_text_have_a_loss(tokenizer):
    (example,), dropped = encode(rows(([0, 1], 2)), TITLES, tokenizer, 256, "response")
    kept = [token for token in example.labels if token != IGNORED]
    assert tokenizer.decode(example.tokens) == f"<s>{prompt(TITLES[:2])}{response(TITLES[2])}</s>"
    assert tokenizer.decode(kept) == f"{response(TITLES[2])}</s>"
    assert example.tokens[-len(kept) :] == kept
    assert dropped == 0


def test_titles_of_the_history_can_have_one_too(tokenizer):
    (example,), _ = encode(rows(([0, 1], 2)), TITLES, tokenizer, 256, "titles")
    kept = [token for token in example.labels if token != IGNORED]
    assert tokenizer.decode(kept) == f"{response(TITLES[0])},{response(TITLES[1])}{response(TITLES[2])}</s>"


def test_rows_too_long_lose_their_oldest_titles(tokenizer):
    full = encode(rows((list(range(10)), 11)), TITLES, tokenizer, 512, "response").examples[0]
    (example,), dropped = encode(rows((list(range(10)), 11)), TITLES, tokenizer, len(full.tokens) - 1, "response")
    assert dropped == 1
    assert tokenizer.decode(example.tokens) == f"<s>{prompt(TITLES[1:10])}{response(TITLES[11])}</s>"


def test_an_endless_title_is_cut_in_prompt_and_response(tokenizer):
    titles = ["y" * 10_000, "Red Castle"]
    examples, _ = encode(rows(([0], 1), ([1], 0)), titles, tokenizer, 128, "response")
    assert all(len(example.tokens) <= 128 for example in examples)
    assert all(example.tokens[-1] == tokenizer.eos_token_id for example in examples)


def test_batches_hold_every_row_once_and_pad_on_the_left(tokenizer):
    pairs = [(list(range(1 + at % 9)), at % 24) for at in range(50)]
    examples = encode(rows(*pairs), TITLES, tokenizer, 256, "response").examples
    seen = []
    for batch in batches(examples, 8, tokenizer.pad_token_id, seed=3):
        assert (batch.tokens[batch.segments == 0] == tokenizer.pad_token_id).all()
        assert (batch.labels[batch.segments == 0] == IGNORED).all()
        assert (batch.tokens[:, -1] == tokenizer.eos_token_id).all()
        seen += [row[of > 0].tolist() for row, of in zip(batch.tokens, batch.segments, strict=True)]
    assert sorted(seen) == sorted(example.tokens for example in examples)


def test_bucketed_batches_need_little_padding(tokenizer):
    pairs = [(list(range(1 + at * 7 % 10)), at % 24) for at in range(400)]
    examples = encode(rows(*pairs), TITLES, tokenizer, 256, "response").examples
    bucketed = sum(batch.segments.numel() for batch in batches(examples, 8, 0, seed=0))
    plain = sum(collate(examples[at : at + 8], 0).segments.numel() for at in range(0, 400, 8))
    needed = sum(len(example.tokens) for example in examples)
    assert bucketed - needed < (plain - needed) / 4


def test_order_of_batches_follows_the_seed(tokenizer):
    examples = encode(rows(*[([at % 24], at % 24) for at in range(40)]), TITLES, tokenizer, 256, "response").examples

    def first(seed):
        return next(iter(batches(examples, 4, 0, seed))).tokens.tolist()

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize(("world", "sample"), [(1, None), (3, None), (2, 21)])
def test_ranks_share_the_rows_without_overlap(tiny_dataset, world, sample):
    parts = [read_slice(tiny_dataset, "train", Slice(rank, world, sample, 0)).to_pylist() for rank in range(world)]
    total = min(sample or ROWS["train"], ROWS["train"])
    assert {len(part) for part in parts} == {total // world}
    tables = [read_rows(file).select(["history", "target"]) for file in sequence_files(tiny_dataset, "train")]
    everything = pa.concat_tables(tables).to_pylist()
    for row in [row for part in parts for row in part]:
        everything.remove(row)  # fails if two ranks hold the same row
