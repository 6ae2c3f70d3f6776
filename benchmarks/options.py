"""What all benchmarks share: the option ``--quick``, and figures that end in one line of JSON."""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that show the page of the benchmark as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def parse(options: argparse.ArgumentParser, **quick: int) -> argparse.Namespace:
    """The options of the command line; ``quick`` holds the defaults of ``--quick``."""
    options.add_argument("--quick", action="store_true", help="Measure little: whether it runs, not how fast.")
    if "--quick" in sys.argv:
        options.set_defaults(**quick)
    return options.parse_args()


def report(figures: Mapping[str, float]) -> None:
    """Print the figures, one a line, and then all of them as one line of JSON."""
    for name, value in figures.items():
        print(f"{name:<40}{value:>16,.3f}")
    print(json.dumps(figures))


def run(name: str, options: Sequence[str]) -> dict[str, float]:
    """The figures of one benchmark, run in a process of its own, from the last line that it prints."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(printed, end="", flush=True)
    return json.loads(printed.splitlines()[-1])
