"""Config of the ``track`` verb."""

from typing import Annotated

from pydantic import Field
from tyro.conf import Positional, arg

from cluster.config import Config, TrackingConfig
from cluster.paths import AnyPath


class TrackConfig(Config):
    """Send what finished directories of train, tune and compare hold to MLflow; what is there is not sent again."""

    directories: Annotated[Positional[tuple[AnyPath, ...]], arg(metavar="DIR...")] = Field(
        (), description="Output directories of these verbs."
    )
    tracking: TrackingConfig = TrackingConfig()
