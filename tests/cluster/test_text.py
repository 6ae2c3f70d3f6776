from cluster.text import aligned


def test_columns_line_up():
    table = aligned([["rank", "title", "score"], ["1", "A long title", "0.5"], ["10", "B", "12.25"]], left=(1,))
    assert table.splitlines() == [
        "rank  title         score",
        "   1  A long title    0.5",
        "  10  B             12.25",
    ]
