from tune.report import Bar, bars, mean_text, spread, write_page


def test_several_values_have_a_deviation_and_one_has_none():
    assert mean_text([0.25]) == "0.2500"
    assert mean_text([0.1, 0.2, 0.3]) == "0.2000 ± 0.1000"
    assert spread([0.25]) == Bar(0.25, 0.25, 0.25)
    assert spread([1.0, 2.0, 3.0]) == Bar(2.0, 1.0, 3.0)


def test_a_page_shows_table_pictures_and_texts_with_what_html_would_take_for_tags(tmp_path):
    drawn = bars({"HR@20": {"plain": Bar(0.1, 0.05, 0.2), "soft": Bar(0.3, 0.3, 0.3)}}, "test")
    files = write_page(tmp_path, "A <b>", "Lead.", [["", "x"], ["a", "1"]], {"Bars": ("b.png", drawn)}, {"T": "1 < 2"})
    assert [file.name for file in files] == ["report.html", "b.png"]
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    assert "<h1>A &lt;b&gt;</h1>" in page and "<td>1</td>" in page and "<pre>1 &lt; 2</pre>" in page
    assert '<img src="b.png"' in page
