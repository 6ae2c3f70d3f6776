"""The pulled student: what it answers, what it skips and what it refuses."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from student_serve import recommender as module
from student_serve.errors import StudentError
from student_serve.recommender import ANSWERS, Recommender
from tests.conftest import MakeStudent


@pytest.fixture
def directory(make_student: MakeStudent) -> Path:
    return make_student()


@pytest.fixture
def recommender(directory: Path) -> Recommender:
    return Recommender(directory)


def test_answers_are_the_best_of_all_scores(recommender: Recommender) -> None:
    answer = recommender.recommend([["i3", "i5"]], k=4)
    scores = recommender.scores([[3, 5]])[0]
    order = [at for at in (-scores).argsort() if at not in (3, 5)][:4]
    assert answer.schema.equals(ANSWERS)
    assert answer["item_ids"][0].as_py() == [f"i{at}" for at in order]
    assert answer["scores"][0].as_py() == [pytest.approx(scores[at]) for at in order]


def test_titles_and_ids_mix_and_mean_the_same(recommender: Recommender) -> None:
    answer = recommender.recommend([["i3", "Title 5"], ["Title 3", "i5"]], k=6)
    assert answer["item_ids"][0] == answer["item_ids"][1]


def test_titles_are_read_as_the_raw_file_spells_them(recommender: Recommender) -> None:
    assert recommender.read(["<b>Title</b>&nbsp; 5", " Title\n6", "Title&#32;8"]).items == [5, 6, 8]


def test_a_shared_title_means_the_first_item(recommender: Recommender) -> None:
    assert recommender.read(["Title 3", "i7"]).items == [3, 7]


def test_the_history_is_left_out_unless_asked_for(recommender: Recommender) -> None:
    without = recommender.recommend([["i3", "i5"]], k=18)["item_ids"][0].as_py()
    everything = recommender.recommend([["i3", "i5"]], k=20, exclude_history=False)["item_ids"][0].as_py()
    assert set(everything) - set(without) == {"i3", "i5"}


def test_only_the_newest_items_of_a_long_history_count(recommender: Recommender) -> None:
    assert recommender.length == 5
    assert (recommender.scores([[9, 8, 1, 2, 3, 4, 5]]) == recommender.scores([[1, 2, 3, 4, 5]])).all()


def test_histories_of_different_lengths_stand_in_their_rows_whatever_the_block(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = [["i1"], [], ["i2", "i3", "i4"], ["no item"], ["i9", "i9"]]
    together = recommender.recommend(histories, k=3)
    monkeypatch.setattr(module, "_BLOCK", 2)
    in_blocks = recommender.recommend(histories, k=3)
    for row, history in enumerate(histories):
        alone = recommender.recommend([history], k=3)["titles"][0]
        assert together["titles"][row] == in_blocks["titles"][row] == alone


@pytest.mark.parametrize("history", [[], ["no item"], [None]])
def test_without_a_known_item_the_most_frequent_in_training_answer(recommender: Recommender, history: list) -> None:
    (answer,) = recommender.recommend([history], k=3).to_pylist()
    assert answer["scores"] == [19.0, 18.0, 17.0]
    assert answer["item_ids"] == ["i13", "i6", "i19"]
    assert answer["skipped"] == history


def test_unknown_items_are_skipped_and_reported(recommender: Recommender) -> None:
    answer = recommender.recommend([["i1", "Titel 4", "i2", ""], ["i1", "i2"]], k=3)
    assert answer["skipped"].to_pylist() == [["Titel 4", ""], []]
    assert answer["item_ids"][0] == answer["item_ids"][1]


def test_no_histories_give_no_answers(recommender: Recommender) -> None:
    assert recommender.recommend([], k=3).num_rows == 0


@pytest.mark.parametrize("k", [0, 19])
def test_a_k_out_of_range_is_an_error(recommender: Recommender, k: int) -> None:
    with pytest.raises(StudentError, match=f"k = {k}, but 18 items are left to recommend"):
        recommender.recommend([["i1", "i2"]], k=k)


def test_something_else_than_text_is_an_error(recommender: Recommender) -> None:
    with pytest.raises(StudentError, match="history: 3 is a int: item ids and titles are text"):
        recommender.recommend([["i1", 3]])
    with pytest.raises(StudentError, match='"i1" is one text, not a list'):
        recommender.recommend(["i1"])


@pytest.mark.parametrize("file", ["model.onnx", "items.parquet"])
def test_missing_and_damaged_files_are_named(directory: Path, file: str) -> None:
    content = (directory / file).read_bytes()
    (directory / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(StudentError, match="damaged"):
        Recommender(directory)
    (directory / file).unlink()
    with pytest.raises(StudentError, match=f"{file} is missing"):
        Recommender(directory)


def test_a_catalogue_of_another_size_is_refused(directory: Path) -> None:
    pq.write_table(pq.read_table(directory / "items.parquet").slice(0, 19), directory / "items.parquet")
    with pytest.raises(StudentError, match="differ in items"):
        Recommender(directory)
