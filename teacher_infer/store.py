"""The label store: shards committed by rename, bound to what they are made from, so that a stopped job resumes.

Rows are labelled a shard at a time. A shard's Parquet file is renamed into place when it is complete; rows without a
label in it failed, their errors stand in ``failures``, and the next run tries them again. Nothing else says what is
done, so that any process may be killed at any moment.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import OutputError, StaleInputError
from cluster.storage import MANIFEST_FILE, check_free
from data_prep.reading import read_rows, shards
from data_prep.schema import FAILURES, Split, failure_file, label_file
from teacher_infer.stats import Stats

JOB_FILE = "job.json"
PROGRESS_FOLDER = ".progress"
VERB = "label"


class Shard(NamedTuple):
    """The rows of one label shard: ``rows`` of them from ``start`` on in one shard of the data set."""

    split: Split
    number: int
    file: str
    start: int
    rows: int

    def read(self) -> pa.Table:
        """The rows (SEQUENCES)."""
        return read_rows(Path(self.file)).slice(self.start, self.rows)


def plan(dataset: Path, splits: tuple[Split, ...], rows_per_shard: int) -> list[Shard]:
    """The label shards of a data set, in order."""
    planned = []
    for split in splits:
        number = 0
        for file in shards(dataset, split):
            count = pq.read_metadata(file).num_rows
            for start in range(0, count, rows_per_shard):
                rows = min(rows_per_shard, count - start)
                planned.append(Shard(split, number, str(file.absolute()), start, rows))
                number += 1
    return planned


class LabelStore:
    """A label directory in the making, or finished."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, made_from: Mapping[str, Any], overwrite: bool) -> None:
        """Begin a job, or resume the one that was begun here.

        Args:
            made_from: fingerprints and settings that the labels depend on, by name.
            overwrite: discard what was made from something else, or is finished.

        Raises:
            StaleInputError: it was begun with something else; says what.
            OutputError: the directory holds something else, or cannot be written.
        """
        if (self.root / JOB_FILE).is_file():
            changed = _changed(json.loads((self.root / JOB_FILE).read_text()), made_from)
            if not changed and not (overwrite and self.finished):
                return
            if not overwrite:
                raise StaleInputError(
                    f"{self.root} was begun with another {', '.join(changed)}: choose another --output, or add "
                    "--overwrite True to label again"
                )
        else:
            check_free(self.root, VERB, overwrite)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            _clear(self.root)
            _write(self.root / JOB_FILE, json.dumps(made_from, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise OutputError(f"{self.root} cannot be written ({error.strerror}): choose another --output") from error

    @property
    def finished(self) -> bool:
        """Whether every shard was there once."""
        return (self.root / MANIFEST_FILE).is_file()

    def missing(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        """Shards that lack rows."""
        for shard in shards:
            file = label_file(self.root, shard.split, shard.number)
            if _labelled(file) < shard.rows:
                yield shard

    def unlabelled(self, shard: Shard) -> tuple[pa.Table, pa.Table | None]:
        """The rows of a shard that have no label, and the labels that it holds, if any."""
        rows, file = shard.read(), label_file(self.root, shard.split, shard.number)
        if not _labelled(file):
            return rows, None
        labels = pq.read_table(file)
        return rows.filter(pc.invert(pc.is_in(rows["row_id"], value_set=labels["row_id"].combine_chunks()))), labels

    def commit(
        self, shard: Shard, before: pa.Table | None, labels: pa.Table, errors: Mapping[int, str], stats: Stats
    ) -> None:
        """Put a shard into place, the labels last.

        Args:
            shard: which one.
            before: labels that it holds already.
            labels: those to add.
            errors: of the rows that are still without, by row id.
            stats: what ``labels`` took and gave.
        """
        failures = failure_file(self.root, shard.split, shard.number)
        folder = self._stats_folder(shard)
        # Named by what was there before, so that an attempt that did not get to its end is written over.
        _write(folder / f"{len(before) if before else 0}.json", stats.model_dump_json())
        if errors:
            table = pa.table({"row_id": list(errors), "error": list(errors.values())}, schema=FAILURES)
            _write_table(failures, table)
        else:
            failures.unlink(missing_ok=True)
        if before is not None:
            labels = pa.concat_tables([before, labels]).sort_by("row_id")
        _write_table(label_file(self.root, shard.split, shard.number), labels)

    def stats(self, shard: Shard) -> Stats:
        """What a shard took and gave; nothing before it is there."""
        file = label_file(self.root, shard.split, shard.number)
        if not file.is_file():
            return Stats()
        labelled = _labelled(file)
        attempts = [
            file for file in self._stats_folder(shard).glob("*.json") if int(file.stem) < labelled or not labelled
        ]
        total = Stats.total(Stats.model_validate_json(file.read_text()) for file in attempts)
        return total.model_copy(update={"rows": labelled, "failed": shard.rows - labelled})

    def first_failure(self, shards: Sequence[Shard]) -> str:
        """Row id and error of a failed row, or nothing."""
        for shard in shards:
            file = failure_file(self.root, shard.split, shard.number)
            if file.is_file():
                first = pq.read_table(file).slice(0, 1).to_pylist()[0]
                return f"row {first['row_id']}: {first['error']}"
        return ""

    def _stats_folder(self, shard: Shard) -> Path:
        return self.root / PROGRESS_FOLDER / shard.split / f"{shard.number:05d}"


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of what differs, with the values of settings."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]

    def shown(name: str) -> str:
        old, new = before.get(name), now.get(name)
        fingerprints = all(isinstance(value, str) and len(value) == 64 for value in (old, new))
        return name if fingerprints else f"{name} ({json.dumps(old)}, now {json.dumps(new)})"

    return [shown(name) for name in names]


def _labelled(file: Path) -> int:
    """Rows in a label shard; none in one that is not there or that a lost machine left damaged."""
    try:
        return int(pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowInvalid):
        return 0


def _clear(root: Path) -> None:
    """Empty a job's directory; as long as anything is left, it still says whose it is."""
    (root / MANIFEST_FILE).unlink(missing_ok=True)
    for found in root.iterdir():
        if found.is_dir():
            shutil.rmtree(found)
        elif found.name != JOB_FILE:
            found.unlink()


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_file(file)
    aside.write_text(text)
    aside.rename(file)


def _write_table(file: Path, table: pa.Table) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_file(file)
    with aside.open("wb") as stream:
        pq.write_table(table, stream)
        stream.flush()
        os.fsync(stream.fileno())  # a rename may outlive what it names when a machine is lost
    aside.rename(file)


def aside_file(file: Path) -> Path:
    """Where this process writes what is renamed to ``file`` when it is complete."""
    return file.parent / f".{file.name}.{os.uname().nodename}-{os.getpid()}"
