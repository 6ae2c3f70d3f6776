"""The documents' commands are real: every `dllm2rec` line parses, every make target and linked file exists."""

import re
import shlex
from pathlib import Path
from pkgutil import resolve_name

import pytest

from cluster.config import load_config
from dllm2rec import VERBS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
DOCUMENTS = {"README.md": README, **PAGES}


def blocks(text: str) -> str:
    return "\n".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")


def commands(text: str) -> list[str]:
    return [line for line in blocks(text).splitlines() if line.startswith("dllm2rec ")]


@pytest.mark.parametrize("command", [command for text in DOCUMENTS.values() for command in commands(text)])
def test_a_command_of_the_documents_is_accepted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _, verb, *rest = shlex.split(command, comments=True)
    if verb == "submit":
        at = next(i for i, word in enumerate(rest) if word in VERBS)
        verb, rest = rest[at], rest[at + 1 :]
    load_config(resolve_name(VERBS[verb].config), verb, list(VERBS), rest)


def test_every_verb_is_shown() -> None:
    words = [command.split() for text in DOCUMENTS.values() for command in commands(text)]
    shown = {command[1] for command in words}
    submitted = {command[2] for command in words if command[1] == "submit"}
    assert shown | submitted >= set(VERBS) - {"demo"}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make ([\w-]+)", blocks(README), flags=re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("name", [*DOCUMENTS, "CONTRIBUTING.md"])
def test_linked_files_exist(name: str) -> None:
    page = ROOT / name if (ROOT / name).exists() else ROOT / "docs" / name
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link
