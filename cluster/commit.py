"""The commit of the code that runs, for manifests and runs."""

import os
import subprocess
from pathlib import Path

COMMIT = "DLLM2REC_COMMIT"
"""Names it where the code has no repository: in a job's copy of the project, and in an image."""


def running_commit() -> str:
    """The commit of the running code; empty where nobody knows it."""
    here = Path(__file__)
    known = _git(here.parent, "ls-files", here.name)  # else it is that of a repository around an environment
    return os.environ.get(COMMIT) or (commit_of(here.parent) if known else "")


def commit_of(folder: Path) -> str:
    """The commit of a working tree, with ``-dirty`` after it where files differ; empty where there is no repository."""
    head = _git(folder, "rev-parse", "HEAD")
    return f"{head}-dirty" if head and _git(folder, "status", "--porcelain", "--untracked-files=no") else head


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if not done.returncode else ""
