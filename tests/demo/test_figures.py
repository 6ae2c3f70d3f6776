"""The table of a demo."""

from pathlib import Path

from cluster.config import Config
from cluster.storage import output_directory
from data_prep.yardsticks import RANKING
from demo.figures import COLUMNS, Figures, render, table, yardstick_figures


def line(name: str, *values: float) -> Figures:
    return Figures(name, {metric: list(values) for metric in COLUMNS}, [1.0] * len(values), 12345, 0.5)


def test_one_seed_shows_a_value_and_several_mean_and_deviation() -> None:
    assert line("a", 0.25).cell("hr@20") == "0.2500"
    assert line("a", 0.1, 0.2, 0.3).cell("hr@20") == "0.2000 ± 0.1000"


def test_a_yardstick_has_figures_and_no_cost(tmp_path: Path) -> None:
    metrics = {f"transitions_{split}_{name}": 0.25 for split in ("validation", "test") for name in RANKING}
    with output_directory(tmp_path / "data", verb="prepare", config=Config()) as draft:
        draft.metrics |= metrics
    (found,) = yardstick_figures(tmp_path / "data")
    assert table([found])[1] == ["to beat: transitions", *["0.2500"] * 4, "–", "–", "–"]


def test_columns_are_aligned() -> None:
    lines = render([line("teacher (ground)", 0.1), line("gru4rec distilled", 0.1, 0.2)]).split("\n")
    assert len({len(text) for text in lines}) == 1
    assert lines[0].split() == [*" ".join(COLUMNS.values()).split(), "test", "s", "parameters"]
    assert lines[1].endswith("12,345")
