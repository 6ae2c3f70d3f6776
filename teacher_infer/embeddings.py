"""The item embeddings of a job: titles embedded in parts by the pool, then put together in item order."""

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
    """Work of the pool: embeddings of one part of the distinct titles."""

    def __init__(self, job: Job) -> None:
        self._job, self._engines = job, Engines(job, share=1)
        self._titles = distinct(read_titles(job.config.dataset))

    def do(self, piece: int) -> dict[str, Any]:
        """Embed and write part ``piece``."""
        file, size = part_file(self._job, piece), self._job.config.rows_per_shard
        texts = [embedded(title) for title in self._titles[piece * size : (piece + 1) * size]]
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
    parts = range(-(-len(texts) // job.config.rows_per_shard))
    part_file(job, 0).parent.mkdir(parents=True, exist_ok=True)
    missing = [part for part in parts if not part_file(job, part).is_file()]
    finished = 0
    for result in work_through(EmbedTitles, job, missing) if missing else ():
        finished += result["titles"]
        report(f"{job.config.output.name}, titles", finished, len(texts), "titles")
    aside = file.with_name(f".{file.name}")
    place_of = {text: place for place, text in enumerate(texts)}
    places_N = np.array([place_of[title] for title in titles])
    put_together([part_file(job, part) for part in parts], places_N, job.config.rows_per_shard, aside)
    if job.config.ranking == "embed" and job.config.whiten:
        _whiten(aside, job)
    aside.rename(file)


def put_together(parts: Sequence[Path], places_N: np.ndarray, size: int, file: Path) -> None:
    """Write a safetensors file of the rows ``places_N`` of stacked parts of ``size`` rows, a block at a time."""
    width = np.load(parts[0], mmap_mode="r").shape[1]

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(places_N), BLOCK):
            places = places_N[start : start + BLOCK]
            block = np.empty((len(places), width), dtype="<f4")
            for part in np.unique(places // size):
                of_part = places // size == part
                block[of_part] = np.load(parts[part], mmap_mode="r")[places[of_part] % size]
            yield block

    _write_blocks(file, len(places_N), width, blocks())


def distinct(titles: Sequence[str]) -> list[str]:
    """Titles without repeats, in order of their first items."""
    return list(dict.fromkeys(titles))


def part_file(job: Job, part: int) -> Path:
    """Embeddings of one part of the distinct titles."""
    return job.config.output / PROGRESS_FOLDER / "titles" / f"{part:05d}.npy"


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
