from cluster.config import Config, TrackingConfig
from cluster.run import flatten, metric_name


def test_metric_names_carry_no_at_sign():
    assert metric_name("validation_ndcg@20") == "validation_ndcg_at_20"


class Settings(Config):
    name: str = "x"
    version: int | None = None
    tracking: TrackingConfig = TrackingConfig()


def test_nested_configs_flatten_to_dotted_names():
    flat = flatten(Settings(tracking=TrackingConfig(experiment="e")))
    assert flat["name"] == "x"
    assert flat["tracking.experiment"] == "e"
    assert flat["version"] == "None"
    assert flatten({"a": {}, "b": {"c": [1, 2]}}) == {"a": "{}", "b.c": "[1, 2]"}
