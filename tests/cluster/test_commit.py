"""The commit of the code that runs."""

import subprocess
from pathlib import Path

import pytest

from cluster.commit import COMMIT, commit_of, running_commit


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "a").write_text("one")
    for words in ("init -q", "add .", "-c user.name=a -c user.email=a@b.c commit -q -m one"):
        subprocess.run(["git", "-C", tmp_path, *words.split()], check=True)
    return tmp_path


def test_a_changed_tree_is_dirty(repository: Path) -> None:
    commit = commit_of(repository)
    assert len(commit) == 40
    (repository / "a").write_text("two")
    assert commit_of(repository) == f"{commit}-dirty"


def test_a_folder_without_a_repository_has_none(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == ""


def test_a_job_or_an_image_says_it_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMIT, "abc")
    assert running_commit() == "abc"
