"""Config of the verb ``prepare``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cluster.config import Config
from cluster.dotted_path import one_of
from cluster.paths import AnyPath

READERS = {
    "csv": "data_prep.readers.tabular:read_csv",
    "parquet": "data_prep.readers.tabular:read_parquet",
    "recbole": "data_prep.readers.recbole:read",
    "movielens": "data_prep.readers.movielens:read",
    "amazon": "data_prep.readers.amazon:read",
}
"""Functions ``read(interactions, items, bad_rows)`` that give the raw log and the raw items as RawTables."""
SYNTHETIC = "synthetic"

SplitRule = Literal["chronological", "timestamps", "leave-one-out"]
RowRule = Literal["bigrec", "every"]
BadRows = Literal["error", "drop"]


class SyntheticConfig(Config):
    """The built-in data set (docs/synthetic.md)."""

    items: int = Field(480, ge=50, le=20_000, description="Catalogue items.")
    users: int = Field(1_500, ge=10, description="Users.")
    mean_length: float = Field(11.0, ge=4, le=100, description="Mean interactions per user (at least 3 each).")
    days: int = Field(730, ge=30, description="Days that the log covers.")
    exploration: float = Field(0.1, ge=0, le=1, description="Share of choices made by popularity alone (noise).")
    late_items: float = Field(0.12, ge=0, le=0.5, description="Share of items released in the last fifth of the days.")
    seed: int = Field(0, ge=0, description="Seed of catalogue, users and choices.")


class PrepareConfig(Config):
    """Turn raw logs and titles into a data set: catalogue, histories and splits."""

    source: Annotated[str, one_of([*READERS, SYNTHETIC])] = Field(
        SYNTHETIC,
        description=f"Format of the raw data: {', '.join(READERS)}, {SYNTHETIC}, or a reader of your own by dotted "
        "path (my_package.readers:read).",
    )
    interactions: AnyPath | None = Field(None, description="Log file (.inter, ratings.dat, reviews, csv, parquet).")
    items: AnyPath | None = Field(None, description="Titles file (.item, movies.dat, metadata, csv, parquet).")
    split: SplitRule = Field("chronological", description="How rows are split; chronological cuts them 8:1:1.")
    rows: RowRule = Field(
        "every",
        description="Targets: every position with a history, or BIGRec's rule (positions from 10 on; of users with "
        "10 interactions or fewer the last one).",
    )
    cut_points: tuple[float, float] | None = Field(
        None,
        description="Of split timestamps, in the data's unit: train < first <= validation < second <= test.",
    )
    gate_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of the validation users whose rows, up to a million, are set aside for promote; 0: none.",
    )
    seed: int = Field(0, ge=0, description="Seed of the choice of these users; they change with nothing else.")
    max_history: int = Field(10, ge=1, le=1_000, description="Most recent items kept of a history.")
    rows_per_shard: int = Field(
        250_000, ge=1, description="Rows per Parquet shard, about: a user's rows are never split over two shards."
    )
    bad_rows: BadRows = Field("error", description="Stop at a bad row, or drop bad rows and count them.")
    min_interactions_per_user: int = Field(2, ge=2, description="Users with fewer are left out.")
    min_interactions_per_item: int = Field(
        1, ge=1, description="Interactions with items that have fewer are left out; repeated with users, to a k-core."
    )
    catalogue: Literal["all", "interacted"] = Field(
        "all", description="Every titled item, or only those that the kept interactions name."
    )
    max_title_length: int = Field(2_000, ge=1, description="Longest title, in characters.")
    synthetic: SyntheticConfig = SyntheticConfig()
    output: AnyPath = Field(Path("runs/dataset"), description="Directory of the data set.")
    overwrite: bool = Field(False, description="Replace an earlier data set in the output directory.")
