"""The label store: shards committed one by one, bound to what they are made from, so that a stopped job resumes.

Rows are labelled a shard at a time. A shard's Parquet file is put into place when it is complete; rows without a label
in it failed, their errors stand in ``failures``, and the next run tries them again. Nothing else says what is done, so
that any process may be killed at any moment.

A directory belongs to one attempt, whose name stands in ``job.json`` and in every shard: a worker of another one that
is still at work somewhere commits nothing, and what it had put there already counts as absent.
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import ValidationError
from torch import Tensor

from cluster.errors import OutputError, StaleInputError
from cluster.files import parquet_file, read_parquet, write_parquet, write_text
from cluster.storage import MANIFEST_FILE, check_free, clear
from data_prep.reading import count_rows, read_range
from data_prep.schema import (
    FAILURES,
    SCORE_KIND_KEY,
    ScoreKind,
    Split,
    failure_file,
    label_file,
    label_files,
    shard_name,
)
from data_prep.score_kind import ScoreScale
from teacher_infer.stats import Stats

JOB_FILE = "job.json"
ATTEMPT = "attempt"
STATS = b"stats"
PROGRESS_FOLDER = ".progress"
VERB = "label"

ANSWERS = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("text", pa.string()),  # the generated answer; null where the row failed
        pa.field("dropped", pa.int32(), nullable=False),  # history titles that its prompt had no room for
        pa.field("error", pa.string()),
    ]
)


class Shard(NamedTuple):
    """The rows of one label shard: ``rows`` of a split from place ``start`` on, whichever files they lie in."""

    split: Split
    number: int
    start: int
    rows: int


def plan(dataset: Path, splits: tuple[Split, ...], rows_per_shard: int, limit: int | None = None) -> list[Shard]:
    """The label shards of a data set, in order; of the first ``limit`` rows of each split, or of all."""
    planned = []
    for split in splits:
        count = count_rows(dataset, split)
        count = min(count, limit or count)
        for number, start in enumerate(range(0, count, rows_per_shard)):
            planned.append(Shard(split, number, start, min(rows_per_shard, count - start)))
    return planned


class LabelStore:
    """A label directory in the making, or finished.

    Args:
        root: the directory.
        attempt: what :meth:`open` returned; none for the directory of an earlier version, whose shards are nameless.
    """

    def __init__(self, root: Path, attempt: str | None = None) -> None:
        self.root, self.attempt = root, attempt

    def open(self, made_from: Mapping[str, Any], overwrite: bool) -> str | None:
        """Begin a job, or resume the one that was begun here.

        Args:
            made_from: fingerprints and settings that the labels depend on, by name.
            overwrite: discard what was made from something else, or is finished.

        Returns:
            the name of the attempt.

        Raises:
            StaleInputError: it was begun with something else; says what.
            OutputError: the directory holds something else, or cannot be written.
        """
        begun = self._begun()
        if begun is not None:
            changed = _changed({name: begun[name] for name in begun if name != ATTEMPT}, made_from)
            if not changed and not (overwrite and self.finished):
                self.attempt = begun.get(ATTEMPT)
                return self.attempt
            if not overwrite:
                raise StaleInputError(
                    f"{self.root} was begun with another {', '.join(changed)}: choose another --output, or add "
                    "--overwrite True to label again"
                )
        else:
            check_free(self.root, VERB, overwrite)
        self.attempt = uuid.uuid4().hex
        try:
            # First the name alone, so that workers of an earlier attempt put nothing into what is emptied.
            self._say({})
            clear(self.root, kept=[JOB_FILE])
            self._say(made_from)
        except OSError as error:
            raise OutputError(f"{self.root} cannot be written ({error.strerror}): choose another --output") from error
        return self.attempt

    @property
    def finished(self) -> bool:
        """Whether every shard was there once."""
        return (self.root / MANIFEST_FILE).is_file()

    def missing(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        """Shards that lack rows."""
        for shard in shards:
            if self._labelled(shard) < shard.rows:
                yield shard

    def unlabelled(self, dataset: Path, shard: Shard) -> pa.Table:
        """The rows of a shard (SEQUENCES) that have no label."""
        rows = read_range(dataset, shard.split, shard.start, shard.rows)
        labels = self._read(self._file(shard))
        return rows if labels is None else _without(rows, labels)

    def commit(self, shard: Shard, labels: pa.Table, errors: Mapping[int, str], stats: Stats) -> None:
        """Add labels to a shard, the labels last.

        Args:
            shard: which one.
            labels: of rows that had none; those that another worker has labelled meanwhile keep the label they have.
            errors: of the rows that are still without, by row id.
            stats: what ``labels`` took and gave.

        Raises:
            StaleInputError: the directory belongs to another attempt now.
        """
        self.check_fence()
        before, failures = self._read(self._file(shard)), failure_file(self.root, shard.split, shard.number)
        # Named by what was there before, so that an attempt that did not get to its end is written over.
        name = f"{0 if before is None else len(before)}.json"
        write_text(self._stats_folder(shard) / name, stats.model_dump_json())
        if errors:
            table = pa.table({"row_id": list(errors), "error": list(errors.values())}, schema=FAILURES)
            write_parquet(table, failures)
        else:
            failures.unlink(missing_ok=True)
        if before is not None:
            added = _without(labels, before)
            if not len(added) and len(labels):
                return
            labels = pa.concat_tables([before.cast(labels.schema), added]).sort_by("row_id")
        self.check_fence()
        write_parquet(self._signed(labels), self._file(shard))

    def stats(self, shard: Shard) -> Stats:
        """What a shard took and gave; what its answers took, before its labels are there."""
        answers, labelled = self.answers(shard), self._labelled(shard)
        total = _stats_of(answers) if answers is not None else Stats()
        if not self._file(shard).is_file():
            return total.model_copy(update={"rows": 0, "failed": 0})
        for file in self._stats_folder(shard).glob("*.json"):
            if int(file.stem) < labelled or not labelled:
                try:
                    total += Stats.model_validate_json(file.read_bytes())
                except ValidationError:  # of a machine that was lost while it wrote
                    continue
        return total.model_copy(update={"rows": labelled, "failed": shard.rows - labelled})

    def answers(self, shard: Shard) -> pa.Table | None:
        """The answers of a shard's rows (ANSWERS) that were generated so far, if any."""
        return self._read(self._answer_file(shard))

    def unanswered(self, shards: Sequence[Shard]) -> list[Shard]:
        """Shards whose rows are not all answered."""
        found = ((shard, self.answers(shard)) for shard in shards)
        return [s for s, answers in found if answers is None or answers["error"].null_count < s.rows]

    def commit_answers(self, shard: Shard, answers: pa.Table, stats: Stats) -> None:
        """Add answers to those of a shard.

        Raises:
            StaleInputError: the directory belongs to another attempt now.
        """
        before = self.answers(shard)
        if before is not None:
            stats += _stats_of(before)
            answers = pa.concat_tables([_without(before, answers), answers])
        self.check_fence()
        signed = self._signed(answers.sort_by("row_id"))
        metadata = (signed.schema.metadata or {}) | {STATS: stats.model_dump_json().encode()}
        write_parquet(signed.replace_schema_metadata(metadata), self._answer_file(shard))

    def check_fence(self) -> None:
        """Refuse to write where another attempt has begun.

        Raises:
            StaleInputError: see above.
        """
        begun = self._begun()
        if begun is None or begun.get(ATTEMPT) != self.attempt:
            raise StaleInputError(f"another job has begun in {self.root} meanwhile: choose another --output for one")

    def _say(self, made_from: Mapping[str, Any]) -> None:
        job = json.dumps({**made_from, ATTEMPT: self.attempt}, indent=1, sort_keys=True)
        write_text(self.root / JOB_FILE, job + "\n")

    def _begun(self) -> dict[str, Any] | None:
        file = self.root / JOB_FILE
        return json.loads(file.read_text()) if file.is_file() else None

    def _file(self, shard: Shard) -> Path:
        return label_file(self.root, shard.split, shard.number)

    def _answer_file(self, shard: Shard) -> Path:
        return self.root / PROGRESS_FOLDER / "answers" / shard.split / shard_name(shard.number)

    def _stats_folder(self, shard: Shard) -> Path:
        return self.root / PROGRESS_FOLDER / shard.split / f"{shard.number:05d}"

    def _signed(self, table: pa.Table) -> pa.Table:
        name = {ATTEMPT: self.attempt} if self.attempt else {}
        return table.replace_schema_metadata({**(table.schema.metadata or {}), **name})

    def _is_ours(self, metadata: Mapping[bytes, bytes] | None) -> bool:
        name = (metadata or {}).get(ATTEMPT.encode())
        return (name.decode() if name else None) == self.attempt

    def _labelled(self, shard: Shard) -> int:
        """Labels in a shard; none in one that is absent, another attempt's, or damaged as a lost machine left it."""
        try:
            with parquet_file(self._file(shard)) as file:
                return int(file.metadata.num_rows) if self._is_ours(file.metadata.metadata) else 0
        except (OSError, pa.ArrowException):
            return 0

    def _read(self, file: Path) -> pa.Table | None:
        """A file of this attempt's, if it is there with any rows and whole."""
        try:
            with parquet_file(file) as opened:
                table = opened.read()
        except (OSError, pa.ArrowException):
            return None
        return table if len(table) and self._is_ours(table.schema.metadata) else None


def score_scale(labels: Path, split: Split) -> ScoreScale:
    """The scale of the scores of the true items of a split; one shard at a time is in memory.

    Raises:
        StaleInputError: there are no labels of the split.
    """
    files = label_files(labels, split)
    if not files:
        raise StaleInputError(f"{labels} holds no labels of {split} rows: run `dllm2rec label` again")
    with parquet_file(files[0]) as first:
        kind: ScoreKind = first.schema_arrow.metadata[SCORE_KIND_KEY].decode()

    def read() -> Iterator[Tensor]:
        for file in files:
            scores = read_parquet(file, ["target_score"])["target_score"]
            if len(scores):
                yield torch.from_numpy(scores.to_numpy().copy())

    return ScoreScale.of(kind, read)


def _without(rows: pa.Table, others: pa.Table) -> pa.Table:
    """The rows whose ids are not among those of ``others``."""
    return rows.filter(pc.invert(pc.is_in(rows["row_id"], value_set=others["row_id"].combine_chunks())))


def _stats_of(answers: pa.Table) -> Stats:
    return Stats.model_validate_json(answers.schema.metadata[STATS])


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of what differs, with the values of settings."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]

    def shown(name: str) -> str:
        old, new = before.get(name), now.get(name)
        fingerprints = all(isinstance(value, str) and len(value) == 64 for value in (old, new))
        return name if fingerprints else f"{name} ({json.dumps(old)}, now {json.dumps(new)})"

    return [shown(name) for name in names]
