"""Rows as token sequences with labels, and batches of them that need little padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from data_prep.reading import read_rows, shards
from data_prep.schema import Split
from teacher_infer.prompts import INTRODUCTION, QUESTION, fitted, prompt, response

IGNORED = -100
POOL = 50  # batches that are sorted by length together


@dataclass(frozen=True)
class Example:
    """One row, or several packed: tokens [L], labels [L] (IGNORED where there is no loss) and the rows' lengths."""

    tokens: list[int]
    labels: list[int]
    lengths: tuple[int, ...]


class Batch(NamedTuple):
    """Left-padded tokens, labels and segments, each [B, L] int64.

    A segment is the number, from 1, of the row that a token belongs to within its sequence; 0 is padding.
    """

    tokens: Tensor
    labels: Tensor
    segments: Tensor


class Encoded(NamedTuple):
    """Examples, and how many of the oldest history titles had no room."""

    examples: list[Example]
    dropped: int


class Slice(NamedTuple):
    """The rows of one rank: every ``world``-th, from ``rank``, of ``rows`` drawn by ``seed``; as many on every rank."""

    rank: int
    world: int
    rows: int | None
    seed: int


def read_slice(dataset: Path, split: Split, share: Slice) -> pa.Table:
    """Histories and targets of one rank's rows; a shard at a time is in memory."""
    files = shards(dataset, split)
    ends = np.cumsum([pq.read_metadata(file).num_rows for file in files])
    drawn = np.random.default_rng(share.seed).permutation(ends[-1])[: share.rows]
    each = len(drawn) // share.world
    places = np.sort(drawn[share.rank :: share.world][:each])
    parts = np.split(places, np.searchsorted(places, ends[:-1]))
    starts = [0, *ends[:-1]]
    tables = [
        read_rows(file).select(["history", "target"]).take(part - start)
        for file, part, start in zip(files, parts, starts, strict=True)
        if len(part) or file is files[0]
    ]
    return pa.concat_tables(tables)


def encode(rows: pa.Table, titles: Sequence[str], tokenizer: Any, max_tokens: int, learn_from: str) -> Encoded:  # noqa: ANN401
    """Tokenise rows; the response and, with ``learn_from`` "titles", the history's titles have a loss.

    A row that does not fit into ``max_tokens`` loses its oldest titles; the response is cut only if it alone is longer
    than half of it.
    """
    answers = [
        [*tokens[: max_tokens // 2 - 1], tokenizer.eos_token_id]
        for tokens in _ids(tokenizer, [response(title) for title in titles], special=False)
    ]
    histories = [[titles[item] for item in history] for history in rows["history"].to_pylist()]
    targets = rows["target"].to_pylist()
    texts = [prompt(history) for history in histories]
    dropped = 0
    for row, tokens in enumerate(_ids(tokenizer, texts)):
        room = max_tokens - len(answers[targets[row]])
        if len(tokens) > room:
            texts[row], lost = fitted(prompt, histories[row], lambda text: len(tokenizer(text)["input_ids"]), room)
            dropped += lost
    read = tokenizer(texts, return_offsets_mapping=True)
    examples = []
    for text, tokens, offsets, target in zip(texts, read["input_ids"], read["offset_mapping"], targets, strict=True):
        start, end = (len(INTRODUCTION), len(text) - len(QUESTION)) if learn_from == "titles" else (0, 0)
        labels = [t if start <= a < b <= end else IGNORED for t, (a, b) in zip(tokens, offsets, strict=True)]
        tokens = tokens + answers[target]
        examples.append(Example(tokens, labels + answers[target], (len(tokens),)))
    return Encoded(examples, dropped)


def batches(examples: Sequence[Example], size: int, padding: int, seed: int | None) -> Iterator[Batch]:
    """Batches of rows of like length: shuffled by ``seed``, in pools sorted by length; in plain order without one."""
    order = np.arange(len(examples))
    if seed is not None:
        order = np.random.default_rng(seed).permutation(order)
    lengths = np.array([len(example.tokens) for example in examples])
    chosen = []
    for start in range(0, len(order), size * POOL):
        pool = order[start : start + size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        chosen += [pool[at : at + size] for at in range(0, len(pool), size)]
    if seed is not None:
        np.random.default_rng(seed).shuffle(chosen)
    for rows in chosen:
        yield collate([examples[row] for row in rows], padding)


def collate(examples: Sequence[Example], padding: int) -> Batch:
    """One left-padded batch: all responses end in the last column."""
    length = max(len(example.tokens) for example in examples)
    tokens = torch.full((len(examples), length), padding)
    labels, segments = torch.full_like(tokens, IGNORED), torch.zeros_like(tokens)
    for row, example in enumerate(examples):
        at = length - len(example.tokens)
        tokens[row, at:], labels[row, at:] = torch.tensor(example.tokens), torch.tensor(example.labels)
        lengths = torch.tensor(example.lengths)
        segments[row, at:] = torch.arange(1, len(lengths) + 1).repeat_interleave(lengths)
    return Batch(tokens, labels, segments)


def _ids(tokenizer: Any, texts: list[str], special: bool = True) -> list[list[int]]:  # noqa: ANN401
    return tokenizer(texts, add_special_tokens=special)["input_ids"]
