from pathlib import Path

import torch
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow.csv import write_csv

from cluster.files import written
from cluster.paths import storage_path
from cluster.storage import read_manifest
from data_prep.config import PrepareConfig, SyntheticConfig
from data_prep.prepare import prepare
from data_prep.reading import longest_history, read_titles
from data_prep.synthetic import generate
from student_train.rows import read_rows


def test_a_remote_data_set_equals_a_local_one(tmp_path: Path) -> None:
    MemoryFileSystem.store.clear()
    roots = tmp_path, storage_path("memory://bucket/folder")
    for root in roots:
        for name, table in zip(("log", "items"), generate(SyntheticConfig(items=60, users=60)), strict=True):
            with written(root / f"{name}.csv") as aside:
                write_csv(table.columns, aside)
        prepare(
            PrepareConfig(
                source="csv",
                interactions=root / "log.csv",
                items=root / "items.csv",
                rows_per_shard=50,
                output=root / "data",
            )
        )
    local, remote = (root / "data" for root in roots)
    assert read_manifest(local).fingerprint == read_manifest(remote).fingerprint
    assert read_manifest(local).metrics == read_manifest(remote).metrics
    assert read_titles(local) == read_titles(remote)
    assert longest_history(local, ["train"]) == longest_history(remote, ["train"])
    for rank in (0, 1):
        ours, theirs = (read_rows(data, "train", 5, 60, rank, 2) for data in (local, remote))
        assert torch.equal(ours.history, theirs.history)
        assert torch.equal(ours.row_id, theirs.row_id)
