"""The item embeddings of a job: titles embedded in shards by the pool, then put together in item order."""

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from cluster.console import report
from data_prep.reading import read_titles
from data_prep.schema import EMBEDDINGS_FILE, EMBEDDINGS_TENSOR
from teacher_infer.job import Engines, Job
from teacher_infer.nearest import read_items
from teacher_infer.pool import work_through
from teacher_infer.prompts import embedded
from teacher_infer.store import PROGRESS_FOLDER, aside_file
from teacher_infer.whitening import BLOCK, Whitening, whitening


class EmbedTitles:
    """Work of the pool: embeddings of one shard of the distinct titles."""

    def __init__(self, job: Job) -> None:
        self._job, self._engines = job, Engines(job, share=1)
        self._titles = distinct(read_titles(job.config.dataset))

    def do(self, shard: int) -> dict[str, Any]:
        """Embed and write one shard."""
        file, size = shard_file(self._job, shard), self._job.config.rows_per_shard
        texts = [embedded(title) for title in self._titles[shard * size : (shard + 1) * size]]
        values = self._engines("embed").embed(texts).numpy()
        aside = aside_file(file)
        with aside.open("wb") as stream:
            np.save(stream, values)
        aside.rename(file)
        return {"titles": len(texts)}


def embed_catalogue(job: Job) -> None:
    """Write the embeddings of all items, if they are not there; what was embedded before is not embedded again."""
    file = job.config.output / EMBEDDINGS_FILE
    if file.is_file():
        return
    titles = read_titles(job.config.dataset)
    texts = distinct(titles)
    shards = range(-(-len(texts) // job.config.rows_per_shard))
    shard_file(job, 0).parent.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in shards if not shard_file(job, shard).is_file()]
    finished = 0
    for result in work_through(EmbedTitles, job, missing) if missing else ():
        finished += result["titles"]
        report(f"{job.config.output.name}, titles", finished, len(texts), "titles")
    aside = file.with_name(f".{file.name}")
    place_of = {text: place for place, text in enumerate(texts)}
    places_N = np.array([place_of[title] for title in titles])
    put_together([shard_file(job, shard) for shard in shards], places_N, job.config.rows_per_shard, aside)
    if job.config.ranking == "embed" and job.config.whiten:
        _whiten(aside, job)
    aside.rename(file)


def put_together(shards: Sequence[Path], places_N: np.ndarray, size: int, file: Path) -> None:
    """Write a safetensors file of the rows ``places_N`` of stacked shards of ``size`` rows, a block at a time."""
    width = np.load(shards[0], mmap_mode="r").shape[1]

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(places_N), BLOCK):
            places = places_N[start : start + BLOCK]
            block = np.empty((len(places), width), dtype="<f4")
            for shard in np.unique(places // size):
                of_shard = places // size == shard
                block[of_shard] = np.load(shards[shard], mmap_mode="r")[places[of_shard] % size]
            yield block

    _write_blocks(file, len(places_N), width, blocks())


def distinct(titles: Sequence[str]) -> list[str]:
    """Titles without repeats, in order of their first items."""
    return list(dict.fromkeys(titles))


def shard_file(job: Job, shard: int) -> Path:
    """Embeddings of one shard of the distinct titles."""
    return job.config.output / PROGRESS_FOLDER / "titles" / f"{shard:05d}.npy"


def read_whitening(job: Job) -> Whitening | None:
    """The map that item embeddings went through, if they did."""
    file = _whitening_file(job)
    return Whitening(**load_file(file)) if file.is_file() else None


def _whiten(file: Path, job: Job) -> None:
    items_NE, whitened = read_items(file), aside_file(file)
    change = whitening(items_NE, job.config.whiten)
    save_file(change._asdict(), _whitening_file(job))
    count, width = items_NE.shape[0], change.axes_EC.shape[1]
    _write_blocks(whitened, count, width, (change(block_BE).numpy() for block_BE in items_NE.split(BLOCK)))
    whitened.rename(file)


def _write_blocks(file: Path, count: int, width: int, blocks: Iterable[np.ndarray]) -> None:
    """Write a safetensors file of item embeddings [count, width] float32, a block of rows at a time."""
    offsets = [0, count * width * 4]
    header = json.dumps({EMBEDDINGS_TENSOR: {"dtype": "F32", "shape": [count, width], "data_offsets": offsets}})
    header += " " * (-len(header) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header.encode())
        for block in blocks:
            stream.write(block.tobytes())


def _whitening_file(job: Job) -> Path:
    return job.config.output / PROGRESS_FOLDER / "whitening.safetensors"
