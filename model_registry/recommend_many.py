"""Recommendations for a file of histories: Ray Data actors, one per CPU, each with a student of its own.

An actor reads its rows from the file itself and writes the answers as a shard, so that only counts pass through the
driver.
"""

import json
import logging
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy

from cluster.errors import DataError, ModelError, OutputError, UserError
from cluster.ray_session import ray_session
from cluster.storage import Draft
from data_prep.schema import shard_name
from model_registry.recommend_config import RecommendConfig
from student_serve.errors import StudentError
from student_serve.recommender import ANSWERS, Recommender

HISTORY = "history"
PIECE, DONE, FAILURE = "piece", "done", "failure"
COUNTS = ("histories", "without_items", "with_skipped", "skipped")


def recommend_many(config: RecommendConfig, histories: Path, student: Path, draft: Draft) -> str:
    """Answer every history into ``part-*.parquet``, in the order of the rows; returns a line that says how it went.

    Raises:
        DataError: there are no histories, or the column ``history`` is missing or no list of text.
        ModelError: the student's files are incomplete, or k is too large.
    """
    pieces = list(_pieces(histories, config.rows_per_shard))
    if not pieces:
        raise DataError(f"{histories} holds no histories")
    Recommender(student)
    with ray_session(config.cluster):
        started = time.perf_counter()
        for done in _answered(config, student.absolute(), draft.path.absolute(), pieces):
            for name in COUNTS:
                draft.counts[name] = draft.counts.get(name, 0) + done[name]
        seconds = time.perf_counter() - started
    counts = draft.counts
    return (
        f"{config.output}: {counts['histories']:,} histories in {seconds:.1f} s; {counts['with_skipped']:,} held "
        f"unknown items ({counts['skipped']:,} skipped, see column skipped), {counts['without_items']:,} held no known "
        "item and got popular ones"
    )


class Scorer:
    """Answers pieces of the file; mistakes of the user come back as values, Ray would wrap them in pages."""

    def __init__(self, student: Path, output: Path, k: int, exclude_history: bool) -> None:
        self._recommender = Recommender(student)
        self._output = output
        self._k, self._exclude_history = k, exclude_history
        # Pieces of one group come one after the other.
        self._group = lru_cache(maxsize=1)(_read_group)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One piece in, its counts out."""
        try:
            counts = [self._do(**json.loads(piece)) for piece in batch[PIECE]]
        except (UserError, StudentError) as error:
            return {DONE: [""], FAILURE: [str(error)]}
        return {DONE: [json.dumps(count) for count in counts], FAILURE: [""] * len(counts)}

    def _do(self, shard: int, file: str, group: int, first: int, rows: int) -> dict[str, int]:
        table = self._group(file, group).slice(first, rows)
        words = [history or [] for history in table[HISTORY].to_pylist()]
        answers = self._recommender.recommend(words, self._k, self._exclude_history)
        kept = table.drop_columns([name for name in ANSWERS.names if name in table.column_names])
        for name in ANSWERS.names:
            kept = kept.append_column(name, answers[name])
        try:
            pq.write_table(kept, self._output / shard_name(shard))
        except OSError as error:
            raise OutputError(f"answers cannot be written to {self._output.parent} ({_one_line(error)})") from error
        skipped = pa.compute.list_value_length(answers["skipped"]).to_numpy()
        known = [len(history) - count for history, count in zip(words, skipped, strict=True)]
        figures = (len(words), known.count(0), int((skipped > 0).sum()), int(skipped.sum()))
        return dict(zip(COUNTS, figures, strict=True))


def _read_group(file: str, group: int) -> pa.Table:
    try:
        return pq.ParquetFile(file).read_row_group(group)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _answered(
    config: RecommendConfig, student: Path, output: Path, pieces: list[dict[str, Any]]
) -> Iterator[dict[str, int]]:
    # It tells of every execution, and that progress bars are off.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    actors = max(1, min(int(ray.cluster_resources()["CPU"]), len(pieces)))
    done = ray.data.from_items([{PIECE: json.dumps(piece)} for piece in pieces], override_num_blocks=len(pieces))
    done = done.map_batches(
        Scorer,
        fn_constructor_args=(student, output, config.k, config.exclude_history),
        batch_size=1,
        compute=ActorPoolStrategy(size=actors),
        num_cpus=1,
    )
    for row in done.iter_rows():
        if row[FAILURE]:
            raise ModelError(row[FAILURE])
        yield json.loads(row[DONE])


def _pieces(histories: Path, rows_per_shard: int) -> Iterator[dict[str, Any]]:
    """Slices of the files' row groups, numbered.

    Raises:
        DataError: see :func:`recommend_many`.
    """
    files = sorted(histories.glob("*.parquet")) if histories.is_dir() else [histories]
    shard = 0
    for file in files:
        metadata = _checked(file)
        for group in range(metadata.num_row_groups):
            total = metadata.row_group(group).num_rows
            for first in range(0, total, rows_per_shard):
                rows = min(rows_per_shard, total - first)
                place = {"file": str(file.absolute()), "group": group, "first": first, "rows": rows}
                yield {"shard": shard, **place}
                shard += 1


def _checked(file: Path) -> pq.FileMetaData:
    """The metadata of a file whose column ``history`` is right."""
    try:
        metadata, schema = pq.read_metadata(file), pq.read_schema(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file} cannot be read as Parquet: {_one_line(error)}") from error
    if HISTORY not in schema.names:
        raise DataError(f"{file} has no column `{HISTORY}`: it has {', '.join(schema.names)}")
    found = schema.field(HISTORY).type
    lists = pa.types.is_list(found) or pa.types.is_large_list(found)
    if not lists or not (pa.types.is_string(found.value_type) or pa.types.is_large_string(found.value_type)):
        raise DataError(f"{file}: column `{HISTORY}` is {found}, not lists of text: write item ids and titles as text")
    return metadata
