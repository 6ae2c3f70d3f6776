import pytest

from cluster.errors import ModelError
from student_train.exported import ExportedStudent
from student_train.recommender import Recommender


@pytest.fixture
def directory(make_student):
    return make_student()


@pytest.fixture
def recommender(directory):
    return Recommender(directory)


def test_answers_are_those_of_the_exported_student(directory, recommender):
    items, scores = ExportedStudent.load(directory).top_k([[3, 5]], 4)
    answer = recommender.recommend([["i3", "i5"]], k=4)
    assert answer["item_ids"][0] == [f"i{at}" for at in items[0].tolist()]
    assert answer["scores"][0] == scores[0].tolist()
    assert answer["scores"][0] == sorted(answer["scores"][0], reverse=True)


def test_titles_and_ids_mix_and_mean_the_same(recommender):
    answer = recommender.recommend([["i3", "Title 5"], ["Title 3", "i5"]], k=6)
    assert answer["item_ids"][0] == answer["item_ids"][1]


def test_a_shared_title_means_the_first_item(recommender):
    assert recommender.index("Title 3") == 3
    assert recommender.index("i7") == 7


def test_the_history_is_left_out_unless_asked_for(recommender):
    without = recommender.recommend([["i3", "i5"]], k=18)["item_ids"][0]
    everything = recommender.recommend([["i3", "i5"]], k=20, exclude_history=False)["item_ids"][0]
    assert set(everything) - set(without) == {"i3", "i5"}


def test_histories_of_different_lengths_stand_in_their_rows(recommender):
    together = recommender.recommend([["i1"], [], ["i2", "i3", "i4"]], k=3)
    alone = [recommender.recommend([history], k=3) for history in (["i1"], [], ["i2", "i3", "i4"])]
    assert together["titles"].tolist() == [answer["titles"][0] for answer in alone]


def test_an_empty_history_gets_the_items_most_frequent_in_training(recommender):
    answer = recommender.recommend([[]], k=3)
    assert answer["scores"][0] == [19.0, 18.0, 17.0]
    assert answer["item_ids"][0] == ["i13", "i6", "i19"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("Titel 4", '"Titel 4" is neither an item id nor a title; the nearest title is "Title 4"'),
        ("TITLE 12", 'the nearest title is "Title 12"'),
        ("", "is neither an item id nor a title"),
        ("Title 4 " * 1250, '…" is neither an item id nor a title; the nearest title is'),
    ],
)
def test_an_unknown_item_is_named_with_the_nearest_title(recommender, word, message):
    with pytest.raises(ModelError, match=message) as caught:
        recommender.recommend([["i1"], ["i2", word]], k=3)
    assert len(str(caught.value)) < 250


def test_more_items_than_are_left_is_an_error(recommender):
    with pytest.raises(ModelError, match="k = 19"):
        recommender.recommend([["i1", "i2"]], k=19)
    with pytest.raises(ModelError, match="k = 21"):
        recommender.recommend([[]], k=21)
