"""Config of the ``recommend`` verb."""

from pathlib import Path

from pydantic import Field

from cluster.config import Config, TrackingConfig


class RecommendConfig(Config):
    """Recommend titles for a history, a new user's included, with a registered student or a student directory."""

    model: str = Field(
        "models:/dllm2rec-student@champion", description="models:/NAME@ALIAS, models:/NAME/VERSION or a directory."
    )
    history: tuple[str, ...] = Field(
        (), description="Item ids or titles, oldest first; none asks for the most popular items."
    )
    k: int = Field(10, ge=1, description="How many titles.")
    exclude_history: bool = Field(True, description="Leave out what the history holds.")
    output: Path = Field(Path("runs/recommendations"), description="Directory for the recommendations.")
    overwrite: bool = Field(True, description="Replace earlier recommendations in the output directory.")
    tracking: TrackingConfig = TrackingConfig()
