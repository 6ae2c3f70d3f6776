from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, model_validator

from cluster.config import (
    Config,
    DeepSpeedConfig,
    TrackingConfig,
    load_config,
    read_yaml,
    split_config_option,
    without_credentials,
)
from cluster.errors import ConfigError


class ExampleConfig(Config):
    """An example."""

    rate: float = Field(1e-3, gt=0, le=1, description="Learning rate.")
    rounds: int = Field(3, ge=1, description="Rounds.")
    kind: Literal["a", "b"] = Field("a", description="Kind.")
    swap: bool = Field(False, description="Swap.")
    name: str = Field("x", min_length=1, description="Name.")
    file: Path | None = Field(None, description="File.")
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()

    @model_validator(mode="after")
    def _agree(self) -> "ExampleConfig":
        if self.swap and self.rounds == 1:
            raise ValueError("swap needs two rounds")
        return self


def load(*argv: str) -> ExampleConfig:
    return load_config(ExampleConfig, "train", ["prepare", "train"], argv)


def yaml_file(path: Path, text: str) -> str:
    (path / "config.yaml").write_text(text)
    return str(path / "config.yaml")


def test_command_line_wins_over_file_and_file_over_defaults(tmp_path: Path) -> None:
    file = yaml_file(
        tmp_path, "train: {rate: 1e-2, rounds: 5, deepspeed: {zero_stage: 2, precision: bf16}}\nprepare: {z: 1}"
    )
    config = load("--rounds", "7", "--config", file, "--deepspeed.zero-stage", "1", "--swap", "True", "--file", "a/b")
    assert config == ExampleConfig(
        rate=0.01, rounds=7, swap=True, file=Path("a/b"), deepspeed=DeepSpeedConfig(zero_stage=1, precision="bf16")
    )


def test_section_may_be_absent_or_empty(tmp_path: Path) -> None:
    assert load("--config", yaml_file(tmp_path, "prepare: {}")) == ExampleConfig()
    assert load("--config=" + yaml_file(tmp_path, "train:")) == ExampleConfig()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--rate 2", "`rate` = 2.0: Input should be less than or equal to 1"),
        ("--rate fast", "Error parsing --rate: could not convert string to float: 'fast'"),
        ("--rounds 1.5", "Error parsing --rounds: invalid literal for int() with base 10: '1.5'"),
        ("--kind c", "invalid choice 'c' for argument '--kind'. Expected one of ('a', 'b')"),
        ("--swap", "Missing value for argument '--swap'. Expected 1 values"),
        ("--deepspeed.zero-stage 4", "invalid choice '4' for argument '--deepspeed.zero-stage'"),
        (
            "--deepspeed.gradient-accumulation 0",
            "`deepspeed.gradient_accumulation` = 0: Input should be greater than or equal to 1",
        ),
        ("--nonsense 1", "unknown option --nonsense (see"),
        ("--deepspeed.stage 1", "unknown option --deepspeed.stage; perhaps --deepspeed.zero-stage"),
        ("stray", "unknown option stray (see"),
        ("--swap True --rounds 1", "swap needs two rounds"),
        ("--config", "--config needs a YAML file"),
    ],
)
@pytest.mark.parametrize("width", ["40", "200"])
def test_wrong_option_is_told_in_one_line(argv: str, message: str, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    with pytest.raises(ConfigError) as caught:
        load(*argv.split())
    line = str(caught.value)
    assert message in line
    assert not {"\n", "│", "╭"} & set(line)
    assert "pydantic" not in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {rate: 2}", "`train.rate` = 2: Input should be less than or equal to 1"),
        ("train: {rte: 2}", "unknown key `train.rte`"),
        ("train: {deepspeed: {stage: 2}}", "unknown key `train.deepspeed.stage`"),
        ("train: {swap: true, rounds: 1}", "`train`: swap needs two rounds"),
        ("train: fast", "`train` = 'fast': Input should be a valid dictionary"),
        ("trian: {}", "unknown section `trian`: sections are prepare, train"),
        ("1: {}\nb: {}", "unknown section `1`"),
        ("- a", "must be a mapping of verbs to their settings"),
        ("", "must be a mapping of verbs to their settings"),
        ("a: b: c", "not valid YAML"),
    ],
)
def test_wrong_file_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = yaml_file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load("--config", file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_file_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read \(No such file or directory\)"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("a: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8 text at byte 3"):
        read_yaml(tmp_path / "latin.yaml")


def test_config_option_is_found_in_both_forms() -> None:
    assert split_config_option(["--a", "1", "--config", "f", "--b"]) == (Path("f"), ["--a", "1", "--b"])
    assert split_config_option(["--config=f", "--b"]) == (Path("f"), ["--b"])
    assert split_config_option(["--b"]) == (None, ["--b"])


def test_settings_that_are_written_hold_no_credentials() -> None:
    uri = "postgresql://me:se/cr@t@db:5432/runs"
    tracking = TrackingConfig(uri=uri)
    assert tracking.model_dump(mode="json")["uri"] == "postgresql://db:5432/runs"
    assert "cr@t" not in tracking.model_dump_json()
    assert tracking.model_dump()["uri"] == tracking.model_copy().uri == uri


def test_nor_do_addresses_within_lists_and_mappings() -> None:
    class Nested(Config):
        places: tuple[str, ...] = ("s3://key:secret@host/a",)
        variants: dict[str, dict[str, str]] = {"a": {"uri": "http://me:secret@host"}}  # noqa: RUF012

    assert "secret" not in Nested().model_dump_json()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:5000/x", "http://host:5000/x"),
        ("https://token@host", "https://host"),
        ("postgresql://db/runs?user=me&password=se=cr!t&x=1", "postgresql://db/runs?user=me&password=***&x=1"),
        ("https://host/x?sig=1&api_key=k3y: refused", "https://host/x?sig=1&api_key=*** refused"),
        ("error at http://me:secret@host: no", "error at http://host: no"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("sqlite:////data/me@work/mlflow.db", "sqlite:////data/me@work/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_addresses_are_shown_without_user_and_password(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
