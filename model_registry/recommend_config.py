"""Config of the ``recommend`` verb."""

from pathlib import Path

from pydantic import Field

from cluster.config import ClusterConfig, Config, TrackingConfig


class RecommendConfig(Config):
    """Recommend titles for a history, a new user's included, or for a file of histories."""

    model: str = Field(
        "models:/dllm2rec-student@champion", description="models:/NAME@ALIAS, models:/NAME/VERSION or a directory."
    )
    history: tuple[str, ...] = Field(
        (), description="Item ids or titles, oldest first; none asks for the most popular items."
    )
    histories: Path | None = Field(
        None,
        description="Parquet file, or directory of them, with a column history of lists of item ids or titles, all "
        "answered on all CPUs; other columns are kept.",
    )
    rows_per_shard: int = Field(50_000, ge=1, description="Histories per file of the answer to a file.")
    k: int = Field(10, ge=1, description="How many titles.")
    exclude_history: bool = Field(True, description="Leave out what the history holds.")
    output: Path = Field(Path("runs/recommendations"), description="Directory for the recommendations.")
    overwrite: bool = Field(True, description="Replace earlier recommendations in the output directory.")
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
