"""Answers to a file of histories: shards in order, other columns kept, unknown items counted."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError, ModelError
from cluster.storage import read_manifest
from dllm2rec import main
from model_registry.recommend import recommend
from model_registry.recommend_config import RecommendConfig
from model_registry.recommend_many import PIECE, Scorer, _pieces
from student_serve.recommender import Recommender
from tests.conftest import MakeStudent

HISTORIES = [["i1", "Title 2"], [], ["i3", "no item"], ["nothing", "known"], None] * 5


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    """25 histories in row groups of ten."""
    table = pa.table({"user": [f"u{at}" for at in range(25)], "history": pa.array(HISTORIES, pa.list_(pa.string()))})
    pq.write_table(table, tmp_path / "histories.parquet", row_group_size=10)
    return tmp_path / "histories.parquet"


def test_every_row_is_in_one_piece(histories: Path) -> None:
    pieces = list(_pieces(histories, 4))
    assert [piece["shard"] for piece in pieces] == list(range(8))
    assert [(piece["group"], piece["first"], piece["rows"]) for piece in pieces] == [
        *[(group, first, rows) for group in (0, 1) for first, rows in ((0, 4), (4, 4), (8, 2))],
        *[(2, 0, 4), (2, 4, 1)],
    ]


def test_a_piece_is_answered_beside_its_own_columns(histories: Path, make_student: MakeStudent, tmp_path: Path) -> None:
    student = make_student()
    scorer = Scorer(student, tmp_path, 3, True)
    piece = list(_pieces(histories, 100))[1]
    answer = scorer({PIECE: [json.dumps(piece)]})
    assert json.loads(answer["done"][0]) == {"histories": 10, "without_items": 6, "with_skipped": 4, "skipped": 6}
    (found, *_), expected = sorted(tmp_path.glob("part-*")), Recommender(student).recommend([["i1", "Title 2"]], 3)
    table = pq.read_table(found)
    assert table.column_names == ["user", "history", "item_ids", "titles", "scores", "skipped"]
    assert table["user"].to_pylist() == [f"u{at}" for at in range(10, 20)]
    assert table["item_ids"][0] == expected["item_ids"][0]
    assert table["item_ids"][1].as_py() == ["i13", "i6", "i19"]
    assert table["skipped"].to_pylist()[:5] == [[], [], ["no item"], ["nothing", "known"], []]


def test_a_mistake_comes_back_as_a_value(histories: Path, make_student: MakeStudent, tmp_path: Path) -> None:
    answer = Scorer(make_student(), tmp_path, 20, True)({PIECE: [json.dumps(next(_pieces(histories, 100)))]})
    assert answer["failure"] == ["k = 20, but 18 items are left to recommend: change k"]


def test_a_damaged_page_and_a_full_disk_come_back_as_values(
    histories: Path, make_student: MakeStudent, tmp_path: Path
) -> None:
    pieces = [json.dumps(piece) for piece in _pieces(histories, 100)]
    full = Scorer(make_student(), tmp_path / "none", 3, True)({PIECE: pieces[:1]})
    assert full["failure"] == [f"answers cannot be written to {tmp_path} (" + full["failure"][0].split(" (")[1]]
    content = bytearray(histories.read_bytes())
    content[4:200] = bytes(196)
    histories.write_bytes(content)
    damaged = Scorer(make_student("again"), tmp_path, 3, True)({PIECE: pieces[:1]})
    assert f"{histories} cannot be read as Parquet: " in damaged["failure"][0]


def test_a_row_group_is_read_once_for_all_its_pieces(
    histories: Path, make_student: MakeStudent, tmp_path: Path
) -> None:
    scorer, (first, second, *_) = Scorer(make_student(), tmp_path, 3, True), _pieces(histories, 4)
    scorer({PIECE: [json.dumps(first)]})
    histories.unlink()
    assert scorer({PIECE: [json.dumps(second)]})["failure"] == [""]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"items": [["i1"]]}, "has no column `history`: it has items"),
        ({"history": [[1, 2]]}, "column `history` is list<element: int64>, not lists of text"),
        ({"history": ["i1"]}, "column `history` is string, not lists of text"),
    ],
)
def test_a_wrong_file_ends_the_command_with_one_line(
    table: dict, message: str, make_student: MakeStudent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table(table), tmp_path / "wrong.parquet")
    asked = ["--model", str(make_student()), "--histories", str(tmp_path / "wrong.parquet")]
    with pytest.raises(SystemExit) as stop:
        main(["recommend", *asked, "--output", str(tmp_path / "out")])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"no Parquet"])
def test_a_missing_or_damaged_file_is_named(content: bytes | None, make_student: MakeStudent, tmp_path: Path) -> None:
    file = tmp_path / "histories.parquet"
    if content:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"histories.parquet cannot be read as Parquet"):
        recommend(RecommendConfig(model=str(make_student()), histories=file, output=tmp_path / "out"))


def test_an_empty_folder_holds_no_histories(make_student: MakeStudent, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no histories"):
        recommend(RecommendConfig(model=str(make_student()), histories=tmp_path / "none", output=tmp_path / "out"))


@pytest.mark.engine
def test_a_file_is_answered_by_all_actors_in_order(
    ray_local: None,
    histories: Path,
    make_student: MakeStudent,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    student = make_student()
    settings = {"model": str(student), "histories": histories, "rows_per_shard": 4}
    output = recommend(RecommendConfig(k=3, output=tmp_path / "out", **settings))
    shards = sorted(output.glob("part-*.parquet"))
    assert [pq.read_metadata(shard).num_rows for shard in shards] == [4, 4, 2, 4, 4, 2, 4, 1]
    answers = pa.concat_tables(map(pq.read_table, shards))
    expected = Recommender(student).recommend([history or [] for history in HISTORIES], 3)
    assert answers["user"].to_pylist() == [f"u{at}" for at in range(25)]
    for column in ("item_ids", "titles", "scores", "skipped"):
        assert answers[column].combine_chunks().equals(expected[column].combine_chunks())
    counts = {"histories": 25, "without_items": 15, "with_skipped": 10, "skipped": 15}
    assert read_manifest(output, "recommend").counts == counts
    assert "25 histories in " in capsys.readouterr().out
    with pytest.raises(ModelError, match="k = 20, but 18 items are left"):
        recommend(RecommendConfig(k=20, output=tmp_path / "refused", **settings))
    assert not (tmp_path / "refused").exists()
