"""vLLM engines as actors of Ray Data: a table of texts in, a table of answers out, in the order of the input."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy
from torch import Tensor

from cluster.errors import ModelError, UserError
from cluster.resources import check_resources
from teacher_infer.config import TeachConfig, VllmConfig
from teacher_infer.engine import Task, VllmEngine

LOG_SECONDS = 10.0
FAILURE = "failure"

Table = dict[str, Any]


class Answers(NamedTuple):
    """Generated texts of P prompts, titles dropped from each prompt [P], engine seconds each took [P]."""

    texts: list[str]
    dropped: np.ndarray
    seconds: np.ndarray


class Embeddings(NamedTuple):
    """Embeddings [T, E] float32 of T texts and the engine seconds each took [T]."""

    values: Tensor
    seconds: np.ndarray


def generate_titles(model: Path, histories: Sequence[Sequence[str]], config: TeachConfig) -> Answers:
    """The raw answers of a generative teacher to histories of titles."""
    table = _through(Generator, model, {"titles": list(histories)}, config, max_new_tokens=config.max_new_tokens)
    return Answers(table["text"].to_pylist(), table["dropped"].to_numpy(), table["seconds"].to_numpy())


def embed_texts(model: Path, texts: Sequence[str], config: TeachConfig) -> Embeddings:
    """Embeddings of texts by a teacher."""
    table = _through(Embedder, model, {"text": list(texts)}, config)
    values = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    return Embeddings(torch.from_numpy(values.astype(np.float32)), table["seconds"].to_numpy())


class _Actor(ABC):
    """An actor that loads its engine at the first batch, so that a failure to load can be answered like any other."""

    task: Task

    def __init__(self, model: Path, config: VllmConfig) -> None:
        self.model, self.config = model, config

    @cached_property
    def engine(self) -> VllmEngine:
        torch.set_num_threads(max(1, int(self.config.cpus)))
        return VllmEngine(self.model, self.task, self.config)

    def __call__(self, batch: Table) -> Table:
        try:
            engine = self.engine  # before the clock starts: start-up is not inference
            start = time.perf_counter()
            answers = self.answer(engine, batch)
        except UserError as error:  # as a value: Ray Data would wrap an exception in pages of its own
            return {"index": batch["index"], FAILURE: [str(error)] * len(batch["index"])}
        each = (time.perf_counter() - start) / len(batch["index"])
        return {"index": batch["index"], **answers, "seconds": np.full(len(batch["index"]), each)}

    @abstractmethod
    def answer(self, engine: VllmEngine, batch: Table) -> Table:
        """Answers to one batch, beside its index."""


class Generator(_Actor):
    """titles → text, dropped."""

    task: Task = "generate"

    def __init__(self, model: Path, config: VllmConfig, max_new_tokens: int) -> None:
        super().__init__(model, config)
        self.max_new_tokens = max_new_tokens

    def answer(self, engine: VllmEngine, batch: Table) -> Table:
        """Generate for one batch."""
        generated = engine.generate([list(titles) for titles in batch["titles"]], self.max_new_tokens)
        return {"text": [g.text for g in generated], "dropped": np.array([g.dropped for g in generated])}


class Embedder(_Actor):
    """text → embedding."""

    task: Task = "embed"

    def answer(self, engine: VllmEngine, batch: Table) -> Table:
        """Embed one batch."""
        return {"embedding": engine.embed(list(batch["text"])).numpy()}


def _through(
    actor: type[_Actor], model: Path, columns: dict[str, list[Any]], config: TeachConfig, **options: int
) -> pa.Table:
    """Run a table through ``config.workers`` actors and put the answers back into order."""
    each = {"CPU": config.engine.cpus, "GPU": config.engine.tensor_parallel_size if config.engine.gpu else 0}
    if not config.engine.autoscale:
        asked = {name: amount * config.workers for name, amount in each.items()}
        check_resources(f"{config.workers} vLLM workers", asked, "lower --workers")
    count = len(next(iter(columns.values())))
    table = pa.table({"index": np.arange(count), **columns})
    blocks = [table.slice(start, config.batch_size) for start in range(0, count, config.batch_size)]
    ray.data.DataContext.get_current().enable_progress_bars = False  # _collect prints its own
    answered = ray.data.from_arrow(blocks).map_batches(
        actor,
        fn_constructor_kwargs={"model": model, "config": config.engine, **options},
        batch_size=config.batch_size,
        compute=ActorPoolStrategy(size=config.workers),
        num_cpus=each["CPU"],
        num_gpus=each["GPU"],
    )
    return _collect(answered, actor.task, count)


def _collect(answered: ray.data.Dataset, task: Task, count: int) -> pa.Table:
    """All answers in order, with a line of progress every few seconds."""
    parts: list[pa.Table] = []
    start = logged = time.perf_counter()
    for part in answered.iter_batches(batch_size=None, batch_format="pyarrow"):
        if FAILURE in part.column_names:
            raise ModelError(part[FAILURE][0].as_py())
        parts.append(part)
        done, now = sum(map(len, parts)), time.perf_counter()
        if now - logged > LOG_SECONDS or done == count:
            left = (now - start) / done * (count - done)
            print(f"{task}: {done:,} of {count:,} texts, {now - start:.0f} s, {left:.0f} s left", flush=True)
            logged = now
    return pa.concat_tables(parts).sort_by("index")
