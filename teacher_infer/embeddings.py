"""The item embeddings of a job: titles embedded in shards by the pool, then put together in item order."""

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.torch import load_file, save_file

from cluster.console import report
from cluster.files import local_copy, written
from data_prep.reading import read_titles
from data_prep.schema import EMBEDDINGS_FILE, EMBEDDINGS_TENSOR
from teacher_infer.job import Engines, Job
from teacher_infer.nearest import read_items
from teacher_infer.pool import Pool
from teacher_infer.prompts import embedded
from teacher_infer.store import PROGRESS_FOLDER
from teacher_infer.whitening import BLOCK, Whitening, whitening

Number = Literal["float32", "float16"]


class EmbedTitles:
    """Work of the pool: embeddings of one shard of the distinct titles."""

    def __init__(self, job: Job, engines: Engines) -> None:
        self._job, self._engines = job, engines
        self._titles = distinct(read_titles(job.config.dataset))

    def do(self, shard: int) -> int:
        """Embed and write one shard; gives the number of its titles."""
        file, size = shard_file(self._job, shard), self._job.config.rows_per_shard
        texts = [embedded(title) for title in self._titles[shard * size : (shard + 1) * size]]
        values = self._engines("embed").embed(texts).numpy()
        self._job.store.check_fence()
        with written(file) as aside, aside.open("wb") as stream:
            np.save(stream, values)
        return len(texts)


def embed_catalogue(job: Job, pool: Pool) -> None:
    """Write the embeddings of all items, if they are not there; what was embedded before is not embedded again."""
    file = job.config.output / EMBEDDINGS_FILE
    if file.is_file():
        return
    titles = read_titles(job.config.dataset)
    texts = distinct(titles)
    shards = range(-(-len(texts) // job.config.rows_per_shard))
    missing = [shard for shard in shards if not _is_whole(shard_file(job, shard))]
    finished = 0
    for titles_done in pool.work_through(EmbedTitles, missing):
        finished += titles_done
        report(f"{job.config.output.name}, titles", finished, len(texts), "titles")
    place_of = {text: place for place, text in enumerate(texts)}
    places_N = np.array([place_of[title] for title in titles])
    files, number = [shard_file(job, shard) for shard in shards], job.config.embedding_dtype
    with written(file) as whole:
        put_together(files, places_N, job.config.rows_per_shard, whole, number)
        if job.config.ranking == "embed" and job.config.whiten:
            _whiten(whole, job)


def put_together(
    shards: Sequence[Path], places_N: np.ndarray, size: int, file: Path, number: Number = "float32"
) -> None:
    """Write a safetensors file of the rows ``places_N`` of stacked shards of ``size`` rows, a block at a time."""
    width = np.load(local_copy(shards[0]), mmap_mode="r").shape[1]

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(places_N), BLOCK):
            places = places_N[start : start + BLOCK]
            block = np.empty((len(places), width), dtype="<f4")
            for shard in np.unique(places // size):
                of_shard = places // size == shard
                block[of_shard] = np.load(local_copy(shards[shard]), mmap_mode="r")[places[of_shard] % size]
            yield block

    _write_blocks(file, len(places_N), width, blocks(), number)


def _is_whole(file: Path) -> bool:
    """Whether a shard is there, and not what a lost machine left of it."""
    try:
        np.load(local_copy(file), mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


def distinct(titles: Sequence[str]) -> list[str]:
    """Titles without repeats, in order of their first items."""
    return list(dict.fromkeys(titles))


def shard_file(job: Job, shard: int) -> Path:
    """Embeddings of one shard of the distinct titles."""
    return job.config.output / PROGRESS_FOLDER / "titles" / f"{shard:05d}.npy"


def read_whitening(job: Job) -> Whitening | None:
    """The map that item embeddings went through, if they did."""
    file = _whitening_file(job)
    return Whitening(**load_file(local_copy(file))) if file.is_file() else None


def _whiten(file: Path, job: Job) -> None:
    """Even out the embeddings in a file, in place."""
    items_NE = read_items(file)
    change = whitening(items_NE, job.config.whiten)
    with written(_whitening_file(job)) as aside:
        save_file(change._asdict(), aside)
    count, width = items_NE.shape[0], change.axes_EC.shape[1]
    with written(file) as aside:
        blocks = (change(block_BE).numpy() for block_BE in items_NE.split(BLOCK))
        _write_blocks(aside, count, width, blocks, job.config.embedding_dtype)


def _write_blocks(file: Path, count: int, width: int, blocks: Iterable[np.ndarray], number: Number) -> None:
    """Write a safetensors file of item embeddings [count, width], a block of rows at a time."""
    code, kind = {"float32": ("F32", "<f4"), "float16": ("F16", "<f2")}[number]
    offsets = [0, count * width * np.dtype(kind).itemsize]
    header = json.dumps({EMBEDDINGS_TENSOR: {"dtype": code, "shape": [count, width], "data_offsets": offsets}})
    header += " " * (-len(header) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header.encode())
        for block in blocks:
            stream.write(block.astype(kind).tobytes())


def _whitening_file(job: Job) -> Path:
    return job.config.output / PROGRESS_FOLDER / "whitening.safetensors"
