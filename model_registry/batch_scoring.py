"""Recommendations for a file of histories: Ray Data reads, answers and writes on all CPUs of the cluster."""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import DataContext, Datasink
from ray.data.block import Block
from ray.data.datasource import WriteResult
from ray.exceptions import RayTaskError

from cluster.console import verbose
from cluster.errors import DataError, OutputError, UserError
from cluster.files import arrow, local_copy, parquet_file, write_parquet
from cluster.ray_session import ray_session
from cluster.storage import Draft
from data_prep.schema import shard_name
from model_registry.config import RecommendConfig
from student_serve.errors import StudentError
from student_serve.recommender import ANSWERS, Recommender

HISTORY, SKIPPED = "history", "skipped"
COUNTS = ("histories", "without_items", "with_skipped", "skipped")


def recommend_many(config: RecommendConfig, histories: Path, student: Path, draft: Draft) -> str:
    """Answer every history into ``part-*.parquet``, in the order of the rows; returns a line that says how it went.

    Raises:
        DataError: there are no histories, or the column ``history`` is missing or no list of text.
        StudentError: the student's files are incomplete, or k is too large.
        OutputError: the answers cannot be written.
    """
    names, filesystems = zip(*map(arrow, _checked_files(histories)), strict=True)
    Recommender(local_copy(student))
    shards = Shards(draft.path.absolute())
    settings = {"student": student.absolute(), "k": config.k, "exclude_history": config.exclude_history}
    with ray_session(config.cluster), _faults_of_one_line(histories):
        context = DataContext.get_current()
        context.enable_progress_bars, context.execution_options.preserve_order = False, True
        context.raise_original_map_exception = True
        started = time.perf_counter()
        rows = ray.data.read_parquet(list(names), filesystem=filesystems[0]).repartition(
            target_num_rows_per_block=config.rows_per_shard
        )
        rows.map_batches(answered, fn_kwargs=settings, batch_size=None, batch_format="pyarrow").write_datasink(shards)
        seconds = time.perf_counter() - started
    draft.counts |= shards.counts
    return (
        f"{config.output}: {shards.counts['histories']:,} histories in {seconds:.1f} s; "
        f"{shards.counts['with_skipped']:,} held unknown items ({shards.counts['skipped']:,} skipped, see column "
        f"{SKIPPED}), {shards.counts['without_items']:,} held no known item and got popular ones"
    )


def answered(rows: pa.Table, student: Path, k: int, exclude_history: bool) -> pa.Table:
    """Rows with the columns of ANSWERS beside their own."""
    words = [history or [] for history in rows[HISTORY].to_pylist()]
    answers = _recommender(student).recommend(words, k, exclude_history)
    own = rows.drop_columns([name for name in ANSWERS.names if name in rows.column_names])
    return pa.table(own.columns + answers.columns, own.column_names + answers.column_names)


@lru_cache(maxsize=1)
def _recommender(student: Path) -> Recommender:
    """Loaded once per process."""
    return Recommender(local_copy(student))


class Shards(Datasink[dict[str, int]]):
    """Numbered files in the order of the rows; Ray Data's own writer does not keep the order within a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.counts = dict.fromkeys(COUNTS, 0)
        """Of all files; complete when everything is written."""

    def write(self, blocks: Iterable[Block], ctx: Any) -> dict[str, int]:  # noqa: ANN401
        """Write one file; returns its counts."""
        rows = pa.concat_tables(blocks)
        try:
            write_parquet(rows, self._folder / shard_name(ctx.task_idx))
        except OSError as error:
            raise OutputError(f"answers cannot be written to {self._folder.parent} ({_words(error)})") from error
        words, skipped = (pc.fill_null(pc.list_value_length(rows[name]), 0).to_numpy() for name in (HISTORY, SKIPPED))
        figures = (len(rows), (words == skipped).sum(), (skipped > 0).sum(), skipped.sum())
        return dict(zip(COUNTS, map(int, figures), strict=True))

    def on_write_complete(self, write_result: WriteResult[dict[str, int]]) -> None:
        """Add up the counts."""
        self.counts = {name: sum(counts[name] for counts in write_result.write_returns) for name in COUNTS}


def _checked_files(histories: Path) -> list[Path]:
    """The files, whose column ``history`` is right.

    Raises:
        DataError: see :func:`recommend_many`.
    """
    files = sorted(histories.glob("*.parquet")) if histories.is_dir() else [histories]
    if sum(map(_checked_rows, files)) == 0:
        raise DataError(f"{histories} holds no histories")
    return [file.absolute() for file in files]


def _checked_rows(file: Path) -> int:
    try:
        with parquet_file(file) as opened:
            rows, schema = opened.metadata.num_rows, opened.schema_arrow
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file} cannot be read as Parquet: {_words(error)}") from error
    if HISTORY not in schema.names:
        raise DataError(f"{file} has no column `{HISTORY}`: it has {', '.join(schema.names)}")
    found = schema.field(HISTORY).type
    lists = pa.types.is_list(found) or pa.types.is_large_list(found)
    if not lists or not (pa.types.is_string(found.value_type) or pa.types.is_large_string(found.value_type)):
        raise DataError(f"{file}: column `{HISTORY}` is {found}, not lists of text: write item ids and titles as text")
    return int(rows)


@contextmanager
def _faults_of_one_line(histories: Path) -> Iterator[None]:
    """Take what a task raised out of Ray's pages of traceback."""
    if not verbose():
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        yield
    except RayTaskError as error:
        cause: BaseException = error
        while deeper := getattr(cause, "cause", None) or cause.__cause__:
            cause = deeper
        if isinstance(cause, UserError | StudentError):
            raise cause from None
        if isinstance(cause, OSError | pa.ArrowException):
            raise DataError(f"{histories} cannot be read as Parquet: {_words(cause)}") from None
        raise


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
