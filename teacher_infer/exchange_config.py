"""Configs of the verbs ``import-labels`` and ``export-labels``."""

from pathlib import Path

from pydantic import Field

from cluster.config import Config
from cluster.paths import AnyPath
from data_prep.schema import Split


class ImportConfig(Config):
    """Turn files of the official DLLM2Rec code into a data set (OUTPUT/dataset) and labels (OUTPUT/labels)."""

    files: AnyPath = Field(
        Path("data"),
        description="Directory of train_data, val_data, test_data and data_statis, each as .parquet, .csv or .df.",
    )
    trust_pickles: bool = Field(
        False, description="Read .df files, which are pickles: a pickle can run any program when it is read."
    )
    teacher_files: AnyPath | None = Field(
        None,
        description="Directory of all_embeddings.pt, myrank_train.txt and confidence_train.txt; by default that of the "
        "data files.",
    )
    titles: AnyPath | None = Field(
        None, description="CSV with item_id (the item number) and title; none calls the items by their numbers."
    )
    rows_per_shard: int = Field(250_000, ge=1, description="Rows per Parquet shard.")
    output: AnyPath = Field(Path("runs/imported"), description="Directory to write dataset and labels into.")
    overwrite: bool = Field(False, description="Replace an earlier import in the output directory.")


class ImportedLabels(Config):
    """What the manifest of imported labels says of them, as that of ``label`` would."""

    teacher: str = Field("", description="Directory of the teacher's files.")
    ranking: str = Field("imported", description="How the teacher ranked: not known here.")
    top_k: int = Field(1, ge=1, description="Items kept per row.")
    splits: tuple[Split, ...] = Field(("train",), description="Splits that are labelled.")


class ExportConfig(Config):
    """Write a data set and the labels of its train rows as files of the official DLLM2Rec code, and titles.csv."""

    dataset: AnyPath = Field(Path("runs/dataset"), description="Data set directory (verb prepare).")
    labels: AnyPath = Field(Path("runs/labels"), description="Label directory (verb label).")
    output: AnyPath = Field(Path("runs/exported"), description="Directory to write.")
    overwrite: bool = Field(False, description="Replace an earlier export in the output directory.")
