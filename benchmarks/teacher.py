"""All that labelling is measured by, in one run: generation, engines side by side, beam search and grounding.

Run: ``python -m benchmarks.teacher [--dataset DIR] [--teacher DIR] [--gpu]``. Each part is a benchmark of its own and
runs in a process of its own; the figures of all of them end in one line of JSON.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.materials import synthetic, trained

PARTS = ("generation", "beam")


def main() -> None:
    """Make what is missing once, run every part and print the figures."""
    options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        if "--dataset" not in options:
            options += ["--dataset", str(synthetic(Path(folder) / "dataset"))]
        if "--teacher" not in options:
            dataset = Path(options[options.index("--dataset") + 1])
            options += ["--teacher", str(trained(dataset, Path(folder) / "teacher"))]
        figures: dict[str, float] = {}
        for part in PARTS:
            figures |= run(part, options)
        figures |= run("grounding", ["--device", "cuda"] if "--gpu" in options else [])
    print(json.dumps(figures))


def run(part: str, options: list[str]) -> dict[str, float]:
    """The figures of one benchmark, from the last line that it prints."""
    command = [sys.executable, "-m", f"benchmarks.{part}", *options]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(printed, end="", flush=True)
    return json.loads(printed.splitlines()[-1])


if __name__ == "__main__":
    main()
