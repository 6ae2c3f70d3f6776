import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
PINNED = re.compile(r"[a-z0-9.\-]+(\[[a-z,]+\])?==[\w.+]+( ; .+)?")


def packages(file: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    return dict(line.split(" ;")[0].split("==") for line in lines)


def direct(*extras: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(d for e in extras for d in project["optional-dependencies"][e])]
    nested = [extra for name in asked for extra in re.findall(r"^dllm2rec\[(.+)\]$", name)]
    return [name for name in asked if not name.startswith("dllm2rec[")] + (direct(*nested) if nested else [])


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_names_no_index_host_url_or_path(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links|\bfile:| @ |^-", text, re.MULTILINE)
    # The only slashes are in prose and in markers.
    assert not [line for line in text.splitlines() if "/" in line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["cpu.txt", "cuda.txt"])
def test_every_line_pins_one_version(name: str) -> None:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    assert [line for line in lines if not PINNED.fullmatch(line)] == []
    assert not {"torchvision", "torchaudio", "torchcodec"} & set(packages(name))


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_every_direct_dependency_is_pinned_to_a_fitting_version(name: str) -> None:
    pinned = packages(f"{name}.txt")
    for requirement in direct(name, "dev"):
        package, version = re.fullmatch(r"([\w\-]+)(?:\[[\w,]+\])?(?:[=>]=([\w.]+)[.*]*)?", requirement).groups()
        assert package.lower() in pinned, requirement
        if "==" in requirement and "*" not in requirement:
            assert pinned[package.lower()].split("+")[0] == version
