from typing import get_args

import pytest

from cluster.config import load_config
from cluster.errors import ConfigError
from tune.config import Parameter, SearchConfig, TuneConfig, searched


def load(*argv: str) -> TuneConfig:
    return load_config(TuneConfig, "tune", ["tune"], argv)


def test_every_parameter_has_a_range():
    assert set(get_args(Parameter)) == set(SearchConfig.model_fields) - {"parameters"}


def test_a_search_varies_what_has_an_effect():
    labels = {"train": {"labels": "somewhere"}}
    assert searched(TuneConfig()) == ("learning_rate",)
    assert searched(TuneConfig.model_validate(labels)) == ("lam", "ed_weight", "learning_rate", "temperature")
    labels["train"]["distillation"] = {"strategy": "dllm2rec"}
    assert "gamma_confidence" in searched(TuneConfig.model_validate(labels))


def test_nested_values_come_from_the_command_line():
    config = load("--search.parameters", "lam", "learning_rate", "--search.lam.high", "0.5", "--train.batch", "64")
    assert config.search.parameters == ("lam", "learning_rate")
    assert (config.search.lam.low, config.search.lam.high) == (0.1, 0.5)
    assert config.train.batch == 64


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--search.lam.low", "2"], "`search.lam`: .*the range is empty: low 2 must be below high 2"),
        (["--search.ed-weight.low", "0"], "a logarithmic range must start above 0"),
        (["--asha.grace", "31"], "grace 31 must not exceed max_epochs 30"),
        (["--search.parameters", "lambda"], "lambda"),
        (["--trials", "0"], "trials"),
        (["--depth", "3"], "--depth"),
    ],
)
def test_bad_values_are_one_line(argv, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(*argv)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_a_file_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("tune:\n  search:\n    gamma: {low: 0.1}\n")
    with pytest.raises(ConfigError, match=r"unknown key `tune\.search\.gamma`"):
        load("--config", str(tmp_path / "c.yaml"))
