"""Config of the verb ``doctor``."""

from pydantic import Field

from cluster.config import ClusterConfig, Config, TrackingConfig


class DoctorConfig(Config):
    """Check that this environment, or every node of a cluster, can do the work; `submit doctor` checks from inside."""

    min_free_gigabytes: float = Field(20, ge=0, description="Least room for temporary files on a node.")
    max_clock_skew: float = Field(
        5, gt=0, description="Largest difference of a node's clock from the driver's, seconds."
    )
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()
