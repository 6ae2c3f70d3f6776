from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.errors import ConfigError, ModelError, StaleInputError
from cluster.storage import fingerprint, read_manifest
from cluster.tracking import Tracker
from dllm2rec import main
from model_registry.config import PromoteConfig, RecommendConfig
from model_registry.promote import promote
from model_registry.recommend import RECOMMENDATIONS, recommend
from model_registry.register import register_student
from student_serve.recommender import Recommender


def test_a_student_directory_answers_and_writes_what_it_prints(make_student, tmp_path, capsys):
    directory = make_student()
    output = recommend(RecommendConfig(model=str(directory), history=("i1", "Title 2"), k=3, output=tmp_path / "out"))
    table = pq.read_table(output / "recommendations.parquet")
    (expected,) = Recommender(directory).recommend([["i1", "i2"]], k=3).to_pylist()
    assert table.schema.equals(RECOMMENDATIONS)
    assert table["item_id"].to_pylist() == expected["item_ids"]
    assert table["rank"].to_pylist() == [1, 2, 3]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["rank", "title", "item", "id", "score"]
    assert [title in line for title, line in zip(expected["titles"], printed[1:], strict=True)] == [True] * 3
    manifest = read_manifest(output, "recommend")
    assert manifest.inputs == {"student": fingerprint(directory)}
    assert manifest.counts == {"recommendations": 3, "skipped": 0}


def test_a_directory_that_is_no_student_is_refused(tmp_path):
    with pytest.raises(StaleInputError, match="run `dllm2rec train"):
        recommend(RecommendConfig(model=str(tmp_path / "nowhere"), output=tmp_path / "out"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("Titel 4", 'skipped: "Titel 4" is neither an item id nor a title; the nearest title is "Title 4"'),
        ("TITLE 12", 'the nearest title is "Title 12"'),
        ("", "is neither an item id nor a title"),
        ("Title 4 " * 1250, '…" is neither an item id nor a title; the nearest title is'),
    ],
)
def test_an_unknown_item_is_skipped_with_a_line(make_student, tmp_path, capsys, word, message):
    asked = {"model": str(make_student()), "k": 3}
    output = recommend(RecommendConfig(history=("i1", word), output=tmp_path / "out", **asked))
    line, *_ = capsys.readouterr().out.splitlines()
    assert message in line
    assert len(line) < 250
    assert read_manifest(output).counts["skipped"] == 1
    without = recommend(RecommendConfig(history=("i1",), output=tmp_path / "without", **asked))
    answers = [pq.read_table(path / "recommendations.parquet") for path in (output, without)]
    assert answers[0].equals(answers[1])


def test_a_k_too_large_ends_the_command_with_one_line_and_code_2(make_student, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["recommend", "--model", str(make_student()), "--k", "21", "--output", f"{tmp_path}/out"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "k = 21, but 20 items are left to recommend" in line
    assert not (tmp_path / "out").exists()


def test_a_history_and_a_file_exclude_each_other(make_student, tmp_path):
    with pytest.raises(ConfigError, match="both given"):
        recommend(RecommendConfig(model=str(make_student()), history=("i1",), histories=tmp_path / "h.parquet"))


@pytest.mark.engine
def test_the_champion_from_the_registry_answers_like_its_directory(make_student, new_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for outputs are relative, as in the README
    tracking = new_store()
    tracker = Tracker(tracking)
    for name, ranks, seed in (("weak", (1, 30, 2, 30), 0), ("strong", (1, 1, 1, 1), 1)):
        register_student(tracker, make_student(name, ranks=ranks, seed=seed), "shop")
        promote(PromoteConfig(name="shop", tracking=tracking, output=Path("promotion")))
    asked = {"history": ("i4", "Title 5"), "k": 5, "tracking": tracking}
    pulled = recommend(RecommendConfig(model="models:/shop@champion", output=Path("pulled"), **asked))
    direct = recommend(RecommendConfig(model=str(tmp_path / "strong"), output=Path("direct"), **asked))
    answers = [pq.read_table(path / "recommendations.parquet") for path in (pulled, direct)]
    assert answers[0].equals(answers[1])
    assert read_manifest(pulled).inputs == read_manifest(direct).inputs


@pytest.mark.engine
@pytest.mark.parametrize("file", ["model.onnx", "items.parquet"])
def test_a_version_that_lost_a_file_is_named(make_student, new_store, tmp_path, file):
    tracking = new_store()
    register_student(Tracker(tracking), make_student(), "torn")
    (stored,) = Path(tracking.uri.removeprefix("sqlite:///")).parent.rglob(f"student/{file}")
    stored.unlink()
    with pytest.raises(ModelError, match=f"`torn` version 1 is missing the file {file}"):
        recommend(RecommendConfig(model="models:/torn/1", tracking=tracking, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.engine
def test_unknown_models_are_named(new_store, tmp_path):
    with pytest.raises(ModelError, match="no model `shop` is registered"):
        recommend(RecommendConfig(model="models:/shop@champion", tracking=new_store(), output=tmp_path / "out"))
