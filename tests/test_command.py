import os
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
import tyro

from cluster.config import Config, SubmitConfig, load_config
from cluster.paths import LocalOrRemote
from dllm2rec import SUBMIT, VERBS

ROOT = Path(__file__).parents[1]
CONFIGS = {name: verb.config for name, verb in VERBS.items()} | {SUBMIT: "cluster.config:SubmitConfig"}


def command(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dllm2rec", *argv],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def options(model: type[Config], prefix: str = "--") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        if tyro.conf.Suppress in field.metadata or tyro.conf.Positional in field.metadata:
            continue  # set in a file only, or named by its place
        option = prefix + name.replace("_", "-")
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, Config)
        names += options(field.annotation, f"{option}.") if nested else [option]
    return names


def every_option() -> list[str]:
    return [f"{verb} {option}" for verb, config in CONFIGS.items() for option in options(resolve_name(config))]


def descriptions(model: type[Config]) -> list[str | None]:
    lines = []
    for field in model.model_fields.values():
        if tyro.conf.Suppress in field.metadata:
            continue
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, Config)
        lines += descriptions(field.annotation) if nested else [field.description]
    return lines


def test_usage_lists_every_verb() -> None:
    done = command()
    assert done.returncode == 0
    for name in CONFIGS:
        assert re.search(rf"^  {name} +\w", done.stdout, re.MULTILINE)


def test_the_list_of_options_is_deliberate() -> None:
    """After adding or removing an option on purpose: ``.venv/bin/python -m tests.test_command > tests/options.txt``."""
    assert every_option() == (ROOT / "tests" / "options.txt").read_text().splitlines()


def test_a_module_that_python_would_take_for_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tune.py").write_text("raise SystemExit('taken')")
    done = subprocess.run(
        [Path(sys.executable).with_name("dllm2rec"), "rollback", "--name", "x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"dllm2rec: error: \S+tune.py has the name of a module of dllm2rec, .*\n", done.stderr)


@pytest.mark.parametrize("name", CONFIGS)
def test_help_has_a_line_per_option(name: str) -> None:
    done = command(name, "--help", COLUMNS="100")
    assert done.returncode == 0
    model = resolve_name(CONFIGS[name])
    for option in options(model):
        assert re.search(rf"(│|,) {re.escape(option)}\b", done.stdout), option
    shown = " ".join(re.sub("[│╭╮╰╯─]", " ", done.stdout).split())
    for text in descriptions(model):
        assert text
        assert " ".join(text.split()) in shown


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_has_a_default(name: str) -> None:
    resolve_name(CONFIGS[name])()


# What `track` writes lies at the tracking server; `jobs` and `doctor` only look.
@pytest.mark.parametrize("name", [name for name in VERBS if name not in ("track", "jobs", "doctor")])
def test_every_verb_config_names_its_output(name: str) -> None:
    fields = resolve_name(CONFIGS[name]).model_fields
    assert fields["output"].annotation is LocalOrRemote
    assert fields["overwrite"].annotation is bool


def test_configs_import_no_heavy_library() -> None:
    modules = sorted({place.split(":")[0] for place in CONFIGS.values()})
    script = (
        "import sys, importlib\n"
        f"for module in {modules!r}: importlib.import_module(module)\n"
        "print(*sorted({'torch', 'ray', 'vllm', 'mlflow', 'transformers', 'deepspeed'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_shipped_config_loads(file: Path, name: str) -> None:
    load_config(resolve_name(CONFIGS[name]), name, list(CONFIGS), ["--config", str(file)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["frobnicate"], "unknown verb `frobnicate`: verbs are prepare, "),
        (["promote", "--nonsense", "1"], "unknown option --nonsense"),
        (["promote", "--version", "0"], "`version` = 0: Input should be greater than or equal to 1"),
        (["promote", "--name", "a/b"], "`name`: a registered model's name must not be empty or hold any of / :"),
        (["train", "--register-as", "a:b"], "`register_as`: a registered model's name must not be empty"),
        (["promote", "--overwrite", "maybe"], "invalid choice 'maybe' for argument '--overwrite'"),
        (["promote", "--config", "none.yaml"], "none.yaml: cannot be read"),
        (["submit"], "no verb to submit"),
        (["submit", "frobnicate"], "unknown verb `frobnicate`"),
        (["submit", "--wait", "False", "promote", "--version", "0"], "`version` = 0"),
        (["submit", "--adress=x", "promote"], "unknown option --adress=x"),
    ],
)
def test_mistake_ends_with_one_line_and_code_2(argv: list[str], message: str) -> None:
    done = command(*argv)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"dllm2rec: error: [^\n]+\n", done.stderr)
    assert message in done.stderr


def test_debug_shows_the_traceback() -> None:
    done = command("promote", "--version", "0", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "cluster.errors.ConfigError" in done.stderr


def test_submit_takes_its_address_from_rays_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    assert SubmitConfig().address == "http://head:8265"
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    assert SubmitConfig().address == "http://127.0.0.1:8265"


if __name__ == "__main__":
    print("\n".join(every_option()))
