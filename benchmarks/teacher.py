"""All that labelling is measured by, in one run: generation, engines side by side, beam search and nearest items.

Run: ``python -m benchmarks.teacher [--quick] [--dataset DIR] [--teacher DIR] [--gpu]``. Each part is a benchmark of its
own and runs in a process of its own. The figures of all of them end in one line of JSON.
"""

import tempfile
from pathlib import Path

from benchmarks.materials import made, parse_teacher, teacher_parser
from benchmarks.options import report, run


def main() -> None:
    """Make what is missing once, run every part and print the figures."""
    asked = parse_teacher(teacher_parser(__doc__))
    quick = ["--quick"] * asked.quick
    with tempfile.TemporaryDirectory() as folder:
        dataset, teacher = made(asked, Path(folder))
        options = ["--dataset", str(dataset), "--teacher", str(teacher), *["--gpu"] * asked.gpu, *quick]
        figures = run("generation", options) | run("beam", options)
        figures |= run("nearest", [*["--device", "cuda"] * asked.gpu, *quick])
    report(figures)


if __name__ == "__main__":
    main()
