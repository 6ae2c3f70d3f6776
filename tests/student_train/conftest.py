"""A small data set and labels in the exchanged schema, written by hand so that few tests need another room."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from cluster.config import Config
from cluster.storage import output_directory
from data_prep.schema import (
    EMBEDDINGS_FILE,
    EMBEDDINGS_TENSOR,
    ITEMS,
    ITEMS_FILE,
    SEQUENCES,
    SPLITS,
    labels_schema,
    shard_name,
)
from data_prep.yardsticks import measure_yardsticks

N_ITEMS = 30
ROWS = {"train": 240, "validation": 60, "test": 60, "gate": 20}
STORED_K = 20


class LabelsConfig(Config):
    """What the train verb reads of a label directory's config."""

    top_k: int = STORED_K
    splits: tuple[str, ...] = SPLITS


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose target follows from the newest item: (newest + 1) mod N, so that a student can learn it."""
    path = tmp_path_factory.mktemp("students") / "dataset"
    generator = torch.Generator().manual_seed(0)
    row_id = 0
    with output_directory(path, verb="prepare", config=Config()) as draft:
        counts = torch.zeros(N_ITEMS, dtype=torch.int64)
        for split, rows in ROWS.items():
            folder = draft.path / "sequences" / split
            folder.mkdir(parents=True)
            records = []
            for _ in range(rows):
                length = int(torch.randint(1, 8, (), generator=generator))
                history = torch.randint(N_ITEMS, (length,), generator=generator).tolist()
                target = (history[-1] + 1) % N_ITEMS
                counts[target] += split == "train"
                records.append([row_id, f"u{row_id // 3}", row_id % 3, history, target, float(row_id)])
                row_id += 1
            for shard, start in enumerate(range(0, rows, 50)):
                columns = list(zip(*records[start : start + 50], strict=True))
                pq.write_table(pa.table(list(map(list, columns)), schema=SEQUENCES), folder / shard_name(shard))
            draft.counts[split] = rows
        items = [range(N_ITEMS), [f"i{n}" for n in range(N_ITEMS)], [f"Title {n}" for n in range(N_ITEMS)], counts]
        pq.write_table(pa.table([list(map(_plain, c)) for c in items], schema=ITEMS), draft.path / ITEMS_FILE)
        draft.metrics |= measure_yardsticks(draft.path)
    return path


@pytest.fixture(scope="session")
def labels(dataset: Path) -> Path:
    """Labels of every row, stored in reverse order: the list starts at the true item, then its successors."""
    from cluster.storage import read_manifest
    from teacher_infer.store import score_scale

    path = dataset.parent / "labels"
    inputs = {"dataset": read_manifest(dataset).fingerprint, "teacher": "hand-made"}
    generator = torch.Generator().manual_seed(1)
    with output_directory(path, verb="label", config=LabelsConfig(), inputs=inputs) as draft:
        for split in SPLITS:
            folder = draft.path / "labels" / split
            folder.mkdir(parents=True)
            rows = pq.read_table(dataset / "sequences" / split)
            records = []
            for row_id, target in zip(rows["row_id"].to_pylist(), rows["target"].to_pylist(), strict=True):
                items = [(target + k) % N_ITEMS for k in range(STORED_K)]
                records.append([row_id, items, [0.1 * k for k in range(STORED_K)], row_id / 100, f"Title {target}"])
            columns = list(zip(*records[::-1], strict=True))
            table = pa.table(list(map(list, columns)), schema=labels_schema("distance"))
            pq.write_table(table, folder / shard_name(0))
            draft.metrics |= score_scale(draft.path, split).metrics(split)
        save_file({EMBEDDINGS_TENSOR: torch.randn(N_ITEMS, 16, generator=generator)}, draft.path / EMBEDDINGS_FILE)
    return path


def _plain(value: object) -> object:
    return value.item() if isinstance(value, torch.Tensor) else value
