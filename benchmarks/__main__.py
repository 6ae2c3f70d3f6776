"""Every benchmark, and its ratios beside those that were recorded.

Run: ``python -m benchmarks [--quick]``, which ``make bench`` does. Rates differ between machines and between hours;
ratios of two things measured in one run hardly do. Those in ``benchmarks/baselines.json`` are compared: what fell by
more than 5 % is marked. ``--record "two cores of …, nothing else at work"`` writes the ratios of this run there, with
the date and these words on the machine.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.options import parse, parser, report, run

BASELINES = Path(__file__).with_name("baselines.json")
BENCHMARKS = ("student_step", "teacher", "search", "serving")
RATIOS = (
    "ratio_step_ranking",
    "ratio_step_full",
    "ratio_generate",
    "ratio_generate_duplicates",
    "scaling_two_engines",
    "ratio_beam",
    "ratio_grounding",
    "grounding_memory_ratio",
    "efficiency_1s",
    "busy",
    "ratio_batch",
)
SMALLER_IS_BETTER = {"grounding_memory_ratio"}
FELL = 0.05


def main() -> None:
    """Run all benchmarks, compare or record their ratios and print all figures."""
    options = parser(__doc__)
    options.add_argument("--record", metavar="MACHINE", help="Record the ratios, with these words on the machine.")
    asked = parse(options)
    figures: dict[str, float] = {}
    for name in BENCHMARKS:
        figures |= run(name, ["--quick"] * asked.quick)
    form = "quick" if asked.quick else "complete"
    baselines = json.loads(BASELINES.read_text()) if BASELINES.is_file() else {}
    if asked.record:
        ratios = {name: round(figures[name], 3) for name in RATIOS if name in figures}
        baselines[form] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": asked.record, "ratios": ratios}
        BASELINES.write_text(json.dumps(baselines, indent=2) + "\n")
    if form in baselines:
        print("\n".join(comparison(figures, baselines[form])))
    report(figures)


def comparison(figures: dict[str, float], baseline: dict[str, Any]) -> list[str]:
    """Lines with the ratios of this run beside those of the baseline; what fell is marked."""
    lines = [f"ratio, recorded on {baseline['date']} on {baseline['machine']}, here"]
    for name, recorded in baseline["ratios"].items():
        here = figures.get(name)
        if here is None:
            lines.append(f"{name:<40}{recorded:>10.3f}  not measured")
            continue
        change = (recorded / here if name in SMALLER_IS_BETTER else here / recorded) - 1
        mark = f"  FELL by {-change:.0%}" if change < -FELL else ""
        lines.append(f"{name:<40}{recorded:>10.3f}{here:>10.3f}{mark}")
    return lines


if __name__ == "__main__":
    main()
