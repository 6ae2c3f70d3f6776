"""The verbs ``import-labels`` and ``export-labels``: files of the official DLLM2Rec code in and out."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.torch import load_file, save_file

from cluster.console import say
from cluster.errors import DataError, StaleInputError
from cluster.files import local_copy, written, written_directory
from cluster.storage import Draft, check_made_from, fingerprint, output_directory, read_manifest
from data_prep.official_rows import Rows, read_official, write_dataset, write_official
from data_prep.readers.delimited import read_columns
from data_prep.reading import read_titles
from data_prep.schema import EMBEDDINGS_FILE, EMBEDDINGS_TENSOR, SPLITS, labels_schema
from data_prep.shards import write_shards
from data_prep.yardsticks import measure_yardsticks, yardstick_table
from teacher_infer.exchange_config import ExportConfig, ImportConfig, ImportedLabels
from teacher_infer.official_labels import OfficialLabels, read_labels, write_labels
from teacher_infer.stats import Stats, list_gains
from teacher_infer.store import score_scale

TITLES_FILE = "titles.csv"


def import_labels(config: ImportConfig) -> Path:
    """Write OUTPUT/dataset and OUTPUT/labels, which the other verbs take as if prepare and label had made them.

    Train rows without history are dropped with their labels. The files hold no distance to the true item; where it is
    not in the list, the last distance of the list stands for it, which it cannot fall below.

    Raises:
        DataError: a file is absent, damaged, an untrusted pickle, or does not fit the others.
        OutputError: the output directory holds something else.
    """
    teacher_files = config.teacher_files or config.files
    items, splits = read_official(local_copy(config.files), config.trust_pickles)
    labels = read_labels(local_copy(teacher_files), len(splits["train"]), items)
    titles = _titles(config.titles, items)
    dropped = _drop_empty_histories(splits, labels)
    target_S = splits["train"]["target"].to_numpy().astype(np.int64)
    inputs = {"files": fingerprint(config.files), "teacher_files": fingerprint(teacher_files)}
    with output_directory(
        config.output, verb="import-labels", config=config, inputs=inputs, overwrite=config.overwrite
    ) as draft:
        with output_directory(draft.path / "dataset", verb="prepare", config=config, inputs=inputs) as dataset:
            dataset.shards = write_dataset(splits, titles, dataset.path, config.rows_per_shard)
            dataset.counts |= {"items": items} | {split: len(rows) for split, rows in splits.items()}
            dataset.metrics |= measure_yardsticks(dataset.path)
        taught = ImportedLabels(teacher=str(teacher_files), top_k=labels.items.shape[1])
        made_from = {
            "dataset": read_manifest(draft.path / "dataset", "prepare").fingerprint,
            "teacher": inputs["teacher_files"],
        }
        with output_directory(draft.path / "labels", verb="label", config=taught, inputs=made_from) as directory:
            _write_labels(target_S, labels, directory, config.rows_per_shard)
        draft.counts |= dataset.counts | {"rows_without_history": dropped}
        draft.metrics |= directory.metrics
    counted = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in draft.counts.items() if count)
    say(
        f"{config.output}/dataset, {config.output}/labels: {counted}, lists of {labels.items.shape[1]}; on train rows "
        f"the teacher has {_judged(target_S, labels.items)}\n{yardstick_table(dataset.metrics)}"
    )
    return config.output


def export_labels(config: ExportConfig) -> Path:
    """Write the official code's seven files, its pickles once more as Parquet, and the titles.

    Raises:
        StaleInputError: data set or labels are missing or do not belong together, or a train row has no label: the
            official code matches rows and labels by line.
        OutputError: the output directory holds something else.
    """
    dataset, labels = read_manifest(config.dataset, "prepare"), read_manifest(config.labels, "label")
    check_made_from(config.labels, labels, "dataset", config.dataset, dataset)
    embeddings = config.labels / EMBEDDINGS_FILE
    if not embeddings.is_file():
        raise StaleInputError(f"{embeddings} is missing: run `dllm2rec label` again")
    inputs = {"dataset": dataset.fingerprint, "labels": labels.fingerprint}
    with output_directory(
        config.output, verb="export-labels", config=config, inputs=inputs, overwrite=config.overwrite
    ) as draft:
        titles, values = read_titles(config.dataset), load_file(local_copy(embeddings))[EMBEDDINGS_TENSOR]
        with written_directory(draft.path) as directory:
            write_official(config.dataset, directory)
            write_labels(config.labels, dataset.counts["train"], values, directory)
            with (directory / TITLES_FILE).open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows([["item_id", "title"], *enumerate(titles)])
        draft.counts |= {"items": len(titles)} | {split: dataset.counts[split] for split in SPLITS}
    say(f"{config.output}: {dataset.counts['train']:,} train rows, {len(titles):,} items")
    return config.output


def _titles(file: Path | None, items: int) -> list[str]:
    titles = [f"item {number}" for number in range(items)]
    if file is None:
        return titles
    names = {"item_id": ["item_id"], "title": ["title"]}
    table = read_columns(file, names, delimiter=",", bad_rows="error", quoted=True).columns
    for row, (item, title) in enumerate(zip(table["item_id"].to_pylist(), table["title"].to_pylist(), strict=True)):
        if not (item.isdecimal() and int(item) < items):
            raise DataError(f"{file}, row {row + 1}: item_id {item} is not in 0 … {items - 1}")
        titles[int(item)] = title.strip() or titles[int(item)]
    return titles


def _drop_empty_histories(splits: Rows, labels: OfficialLabels) -> int:
    """Leave out rows without a history, and their labels; gives their number."""
    dropped = 0
    for split, rows in splits.items():
        kept = pc.greater(pc.list_value_length(rows["history"]), 0)
        splits[split] = rows.filter(kept)
        dropped += len(rows) - len(splits[split])
        if split == "train":
            labels.items, labels.distances = labels.items[kept.to_numpy()], labels.distances[kept.to_numpy()]
    return dropped


def _write_labels(target_S: np.ndarray, labels: OfficialLabels, directory: Draft, rows_per_shard: int) -> None:
    with written(directory.path / EMBEDDINGS_FILE) as aside:
        save_file({EMBEDDINGS_TENSOR: labels.embeddings}, aside)
    found = labels.items == target_S[:, None]
    place = np.where(found.any(1), found.argmax(1), labels.items.shape[1] - 1)
    columns = {
        "row_id": np.arange(len(target_S)),
        "items": list(labels.items.astype(np.int32)),
        "scores": list(labels.distances),
        "target_score": np.take_along_axis(labels.distances, place[:, None], 1)[:, 0],
        "text": [None] * len(target_S),
    }
    table = pa.table(columns, schema=labels_schema("distance"))
    directory.shards["train"] = write_shards(table, directory.path / "labels/train", rows_per_shard)
    directory.counts |= {"train": len(target_S), "items": len(labels.embeddings)}
    directory.metrics |= score_scale(directory.path, "train").metrics("train")
    directory.metrics |= {f"train_{name}": value for name, value in _teacher_metrics(target_S, labels.items).items()}


def _judged(target_S: np.ndarray, items: np.ndarray) -> str:
    """The teacher's hit rate in words, and whether its items seem to be counted from 1."""
    name, value = next((n, v) for n, v in reversed(_teacher_metrics(target_S, items).items()) if n.startswith("hr@"))
    one_less = _teacher_metrics(target_S, items - 1)[name]
    suspicion = f", and {one_less:.4f} with every item number one less: count items from 0" if one_less > value else ""
    return f"{name.upper()} {value:.4f}{suspicion}"


def _teacher_metrics(target_S: np.ndarray, items: np.ndarray) -> dict[str, float]:
    gains = list_gains(torch.from_numpy(items), torch.from_numpy(target_S))
    return Stats(rows=len(items), gains=gains).metrics(items.shape[1])
