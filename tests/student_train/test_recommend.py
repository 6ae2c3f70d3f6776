import pyarrow.parquet as pq
import pytest

from cluster.config import PromoteConfig
from cluster.errors import ModelError, StaleInputError
from cluster.promote import promote
from cluster.storage import fingerprint, read_manifest
from cluster.tracking import Tracker
from dllm2rec import main
from student_train.recommend import RECOMMENDATIONS, recommend
from student_train.recommend_config import RecommendConfig
from student_train.recommender import Recommender
from student_train.register import register_student


def test_a_student_directory_answers_and_writes_what_it_prints(make_student, tmp_path, capsys):
    directory = make_student()
    output = recommend(RecommendConfig(model=str(directory), history=("i1", "Title 2"), k=3, output=tmp_path / "out"))
    table = pq.read_table(output / "recommendations.parquet")
    expected = Recommender(directory).recommend([["i1", "i2"]], k=3)
    assert table.schema.equals(RECOMMENDATIONS)
    assert table["item_id"].to_pylist() == expected["item_ids"][0]
    assert table["rank"].to_pylist() == [1, 2, 3]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["rank", "title", "item", "id", "score"]
    assert [title in line for title, line in zip(expected["titles"][0], printed[1:], strict=True)] == [True] * 3
    manifest = read_manifest(output, "recommend")
    assert manifest.inputs == {"student": fingerprint(directory)}
    assert manifest.counts == {"recommendations": 3}


def test_a_directory_that_is_no_student_is_refused(tmp_path):
    with pytest.raises(StaleInputError, match="run `dllm2rec train"):
        recommend(RecommendConfig(model=str(tmp_path / "nowhere"), output=tmp_path / "out"))


def test_an_unknown_item_ends_the_command_with_one_line_and_code_2(make_student, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["recommend", "--model", str(make_student()), "--history", "i1", "Titel 2", "--output", f"{tmp_path}/out"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'the nearest title is "Title 2"' in line
    assert not (tmp_path / "out").exists()


@pytest.mark.engine
def test_the_champion_from_the_registry_answers_like_its_directory(make_student, new_store, tmp_path):
    tracking = new_store()
    tracker = Tracker(tracking)
    for name, ndcg, seed in (("weak", 0.1, 0), ("strong", 0.2, 1)):
        register_student(tracker, make_student(name, ndcg=ndcg, seed=seed), "shop")
        promote(PromoteConfig(name="shop", tracking=tracking, output=tmp_path / "promotion"))
    asked = {"history": ("i4", "Title 5"), "k": 5, "tracking": tracking}
    pulled = recommend(RecommendConfig(model="models:/shop@champion", output=tmp_path / "pulled", **asked))
    direct = recommend(RecommendConfig(model=str(tmp_path / "strong"), output=tmp_path / "direct", **asked))
    answers = [pq.read_table(path / "recommendations.parquet") for path in (pulled, direct)]
    assert answers[0].equals(answers[1])
    assert read_manifest(pulled).inputs == read_manifest(direct).inputs


@pytest.mark.engine
def test_unknown_models_are_named(new_store, tmp_path):
    with pytest.raises(ModelError, match="no model `shop` is registered"):
        recommend(RecommendConfig(model="models:/shop@champion", tracking=new_store(), output=tmp_path / "out"))
