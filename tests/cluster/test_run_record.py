from cluster.config import Config, TrackingConfig
from cluster.run_record import flatten, metric_name


class Settings(Config):
    name: str = "x"
    version: int | None = None
    tracking: TrackingConfig = TrackingConfig()


def test_metric_names_carry_no_at_sign():
    assert metric_name("validation_ndcg@20") == "validation_ndcg_at_20"


def test_nested_configs_flatten_to_dotted_names():
    flat = flatten(Settings(tracking=TrackingConfig(experiment="e")))
    assert flat == {"name": "x", "version": "None", "tracking.experiment": "e", "tracking.uri": "None"}
    assert flatten({"a": {}, "b": {"c": [1, 2]}}) == {"a": "{}", "b.c": "[1, 2]"}


def test_parameters_hold_no_credentials():
    uri = "postgresql://me:se/cr@t@db:5432/runs"
    assert flatten(Settings(tracking=TrackingConfig(uri=uri)))["tracking.uri"] == "postgresql://db:5432/runs"
