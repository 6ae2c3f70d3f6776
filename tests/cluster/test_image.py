"""The image's Dockerfile: no Docker here, so a linter reads it, and what it copies must be there and be enough."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster/image/Dockerfile"
TEXT = DOCKERFILE.read_text().replace("\\\n", " ")
COPIED = [words for line in re.findall(r"^COPY (?:--\S+ )*(.+)$", TEXT, re.M) for words in line.split()[:-1]]


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_everything_that_it_copies_is_there() -> None:
    assert [name for name in COPIED if not (ROOT / name).exists()] == []


def test_it_copies_every_package_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {pattern.rstrip("*") for pattern in project["packages"]["find"]["include"]}
    assert packages | {f"{module}.py" for module in project["py-modules"]} <= set(COPIED)


def test_it_starts_from_the_pinned_ray_in_both_variants() -> None:
    lines = (ROOT / "requirements/cuda.txt").read_text().splitlines()
    ray = next(line.removeprefix("ray==") for line in lines if line.startswith("ray=="))
    assert re.findall(r"^FROM rayproject/ray:(\S+) AS (\S+)", TEXT, re.M) == [
        (f"{ray}-py311-gpu", "cuda"),
        (f"{ray}-py311-cpu", "cpu"),
    ]
    for variant in ("cuda", "cpu"):
        assert (ROOT / f"requirements/{variant}.txt").is_file()
