"""Config of the ``track`` verb."""

from pathlib import Path

from pydantic import Field
from tyro.conf import Positional

from cluster.config import Config, TrackingConfig


class TrackConfig(Config):
    """Send what finished directories of train, tune and compare hold to MLflow; what is there is not sent again."""

    directories: Positional[tuple[Path, ...]] = Field((), description="Directories.")
    tracking: TrackingConfig = TrackingConfig()
