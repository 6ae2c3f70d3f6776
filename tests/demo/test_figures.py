"""The table of a demo."""

from demo.figures import COLUMNS, Figures, render


def line(name: str, *values: float) -> Figures:
    return Figures(name, {metric: list(values) for metric in COLUMNS}, [1.0] * len(values), 12345, 0.5)


def test_one_seed_shows_a_value_and_several_mean_and_deviation() -> None:
    assert line("a", 0.25).cell("hr@20") == "0.2500"
    assert line("a", 0.1, 0.2, 0.3).cell("hr@20") == "0.2000 ± 0.1000"


def test_columns_are_aligned() -> None:
    lines = render([line("teacher (ground)", 0.1), line("gru4rec distilled", 0.1, 0.2)]).split("\n")
    assert len({len(text) for text in lines}) == 1
    assert lines[0].split() == [*" ".join(COLUMNS.values()).split(), "test", "s", "parameters"]
    assert lines[1].endswith("12,345")
