"""Rows as token sequences with labels, and batches of them without padding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import DataCollatorWithFlattening

from data_prep.reading import read_rows, shard_rows
from data_prep.schema import Split
from teacher_infer.prompts import INTRODUCTION, QUESTION, fitted, prompt, response

IGNORED = -100


class Example(TypedDict):
    """The tokens of one row [L] int32, and its labels [L] int32: IGNORED where there is no loss."""

    input_ids: np.ndarray
    labels: np.ndarray


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
    counts = shard_rows(dataset, split)
    files, ends = list(counts), np.cumsum(list(counts.values()))
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
    examples: list[Example] = []
    for text, tokens, offsets, target in zip(texts, read["input_ids"], read["offset_mapping"], targets, strict=True):
        start, end = (len(INTRODUCTION), len(text) - len(QUESTION)) if learn_from == "titles" else (0, 0)
        labels = [t if start <= a < b <= end else IGNORED for t, (a, b) in zip(tokens, offsets, strict=True)]
        tokens_L, labels_L = (np.array(part + answers[target], dtype=np.int32) for part in (tokens, labels))
        examples.append({"input_ids": tokens_L, "labels": labels_L})
    return Encoded(examples, dropped)


def collate(groups: Sequence[Sequence[Example]], masked: bool = False) -> dict[str, Any]:
    """What a causal LM of transformers is called with for the examples of all groups, one after another [1, T].

    Positions start again with every example. Logits are computed only where the next token has a label [1, C].

    Args:
        groups: of examples.
        masked: add the mask [1, 1, T, T] that keeps examples apart, for an attention that does not see where they end.
    """
    flatten = DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    batch = flatten([example for group in groups for example in group])
    labels_1T = batch["labels"]  # the first token of an example has none
    places_C = (labels_1T[0, 1:] != IGNORED).nonzero().flatten()
    labels_1C = labels_1T[:, places_C + 1]
    batch |= {"labels": labels_1C, "shift_labels": labels_1C, "logits_to_keep": places_C, "use_cache": False}
    return batch | {"attention_mask": mask(batch["cu_seq_lens_q"].diff())} if masked else batch


def mask(lengths: Tensor) -> Tensor:
    """What is added to attention scores [1, 1, T, T]: 0 from a token back to the start of its row, else very little."""
    of_T = torch.arange(len(lengths)).repeat_interleave(lengths)
    seen_TT = (of_T[:, None] == of_T).tril()
    return torch.zeros(seen_TT.shape).masked_fill(~seen_TT, torch.finfo(torch.float32).min)[None, None]


def _ids(tokenizer: Any, texts: list[str], special: bool = True) -> list[list[int]]:  # noqa: ANN401
    return tokenizer(texts, add_special_tokens=special)["input_ids"]
