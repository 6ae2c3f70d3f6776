"""The two kinds of teacher: both turn a history into a point among the item embeddings."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_prep.reading import read_rows, shards
from data_prep.schema import ScoreKind
from teacher_infer.actors import embed_texts, generate_titles
from teacher_infer.config import TeachConfig
from teacher_infer.prompts import embedded, title_of

History = Sequence[int]


class Queries(NamedTuple):
    """Where the teacher places B histories: points [B, E], and the generated titles [B] or none."""

    points: Tensor
    texts: list[str] | None


class Teacher(Protocol):
    """A teacher with its catalogue."""

    kind: ScoreKind
    embeddings_NE: Tensor
    dropped: int  # history titles its prompts had no room for

    def place(self, histories: Sequence[History]) -> Queries:
        """Points and texts of histories that :func:`open_teacher` has seen."""
        ...

    def engine_seconds(self, histories: Sequence[History]) -> float:
        """Inference time of the engines for these histories, each distinct prompt once."""
        ...


class GroundingTeacher:
    """A causal LM: generates a title for a history; the title's embedding is the point (BIGRec, section 3)."""

    kind: ScoreKind = "distance"

    def __init__(self, model: Path, titles: Sequence[str], histories: Sequence[History], config: TeachConfig) -> None:
        self._titles = titles
        # Rows that read alike get one prompt, generated texts that are alike one embedding.
        prompts = list(dict.fromkeys(map(self._read, histories)))
        answers = generate_titles(model, prompts, config)
        answered = [title_of(text) for text in answers.texts]
        texts = list(dict.fromkeys([*titles, *answered]))
        embedded_texts = embed_texts(model, [embedded(text) for text in texts], config)
        place_of = {text: at for at, text in enumerate(texts)}
        self._points = embedded_texts.values
        self._text_of = dict(zip(prompts, answered, strict=True))
        self._seconds_of = dict(zip(prompts, answers.seconds.tolist(), strict=True))
        self._place_of = place_of
        self._embedding_seconds = embedded_texts.seconds
        self.dropped = int(answers.dropped.sum())
        self.embeddings_NE = self._points[[place_of[title] for title in titles]]

    def place(self, histories: Sequence[History]) -> Queries:
        """The embeddings of the generated titles."""
        texts = [self._text_of[self._read(history)] for history in histories]
        return Queries(self._points[[self._place_of[text] for text in texts]], texts)

    def engine_seconds(self, histories: Sequence[History]) -> float:
        """Generation of the distinct prompts, and embedding of the distinct texts that came of them."""
        prompts = set(map(self._read, histories))
        texts = {self._text_of[prompt] for prompt in prompts}
        embedding = self._embedding_seconds[[self._place_of[text] for text in texts]].sum()
        return sum(self._seconds_of[prompt] for prompt in prompts) + float(embedding)

    def _read(self, history: History) -> tuple[str, ...]:
        return tuple(self._titles[item] for item in history)


class EmbeddingTeacher:
    """A text-embedding model: a history is the recency-weighted mean of its titles' embeddings."""

    kind: ScoreKind = "cosine"
    dropped = 0

    def __init__(self, model: Path, titles: Sequence[str], config: TeachConfig) -> None:
        texts = list(dict.fromkeys(titles))
        place_of = {text: at for at, text in enumerate(texts)}
        self._decay = config.decay
        embeddings_NE = embed_texts(model, texts, config).values[[place_of[title] for title in titles]]
        self.embeddings_NE = whitened(embeddings_NE, config.whiten) if config.whiten else embeddings_NE

    def place(self, histories: Sequence[History]) -> Queries:
        """Means of unit title embeddings, the newest with weight 1, the one before with ``decay`` …"""
        longest = max(map(len, histories), default=0)
        newest_first_BL = padded([list(reversed(history)) for history in histories], longest, len(self.embeddings_NE))
        weights_BL = (self._decay ** torch.arange(longest)).expand(len(histories), longest).contiguous()
        units_NE = functional.normalize(self.embeddings_NE, dim=1)
        table = torch.cat([units_NE, torch.zeros(1, units_NE.shape[1])])
        sums_BE = functional.embedding_bag(newest_first_BL, table, per_sample_weights=weights_BL, mode="sum")
        weights_B1 = (weights_BL * (newest_first_BL < len(units_NE))).sum(1, keepdim=True)
        return Queries(sums_BE / weights_B1, None)

    def engine_seconds(self, histories: Sequence[History]) -> float:
        """None: the catalogue is embedded once, whatever is asked later."""
        return 0.0


def whitened(embeddings_NE: Tensor, power: float) -> Tensor:
    """Embeddings in the axes of their principal components, each divided by its standard deviation to ``power``.

    Sentence embeddings crowd into a few directions that say what all titles have in common; evening the directions out
    lets the others tell items apart (Su et al., "Whitening sentence representations", 2021). Where the data have fewer
    directions than the model, the empty ones stay empty.
    """
    centred_NE = (embeddings_NE - embeddings_NE.mean(0)).double()
    left_NC, spread_C, _ = torch.linalg.svd(centred_NE, full_matrices=False)
    present_C = spread_C > spread_C.max() * 1e-6
    scaled_C = torch.where(present_C, spread_C.clamp(min=1e-300) ** (1 - power), 0.0)
    # A component's sign is arbitrary; the largest entry is made positive, so that every machine gives the same.
    largest_C = left_NC.abs().argmax(0)
    signs_C = left_NC.gather(0, largest_C[None])[0].sign()
    return (left_NC * signs_C * scaled_C).float().contiguous()


def open_teacher(model: Path, titles: Sequence[str], config: TeachConfig) -> Teacher:
    """Run the teacher's engines over the catalogue and the rows of ``config.splits``."""
    if config.ranking == "embed":
        return EmbeddingTeacher(model, titles, config)
    histories = [
        history.as_py()
        for split in config.splits
        for shard in shards(config.dataset, split)
        for history in read_rows(shard)["history"]
    ]
    return GroundingTeacher(model, titles, histories, config)


def padded(histories: Sequence[History], length: int, padding: int) -> Tensor:
    """Histories as one matrix [B, length] int64, padded at the end."""
    matrix = np.full((len(histories), length), padding, dtype=np.int64)
    for row, history in enumerate(histories):
        matrix[row, : len(history)] = history
    return torch.from_numpy(matrix)
