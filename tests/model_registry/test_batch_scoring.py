"""Answers to a file of histories: files and rows in order, other columns kept, unknown items counted."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import DataError, OutputError
from cluster.storage import Draft, read_manifest
from dllm2rec import main
from model_registry.batch_scoring import Shards, answered, recommend_many
from model_registry.config import RecommendConfig
from model_registry.recommend import recommend
from student_serve.errors import StudentError
from student_serve.recommender import Recommender
from tests.conftest import MakeStudent

HISTORIES = [["i1", "Title 2"], [], ["i3", "no item"], ["nothing", "known"], None] * 5


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    """25 histories in two files, in row groups of ten."""
    (folder := tmp_path / "histories").mkdir()
    table = pa.table({"user": [f"u{at}" for at in range(25)], "history": pa.array(HISTORIES, pa.list_(pa.string()))})
    for name, rows in {"a": table.slice(0, 14), "b": table.slice(14)}.items():
        pq.write_table(rows, folder / f"{name}.parquet", row_group_size=10)
    return folder


def test_rows_are_answered_beside_their_own_columns(histories: Path, make_student: MakeStudent) -> None:
    student = make_student()
    rows = pq.read_table(histories / "a.parquet").append_column("titles", pa.array(["mine"] * 14))
    table = answered(rows, student, k=3, exclude_history=True)
    assert table.column_names == ["user", "history", "item_ids", "titles", "scores", "skipped"]
    assert table["user"].to_pylist() == [f"u{at}" for at in range(14)]
    assert table["item_ids"][0] == Recommender(student).recommend([["i1", "Title 2"]], 3)["item_ids"][0]
    assert table["item_ids"][1].as_py() == ["i13", "i6", "i19"]
    assert table["skipped"].to_pylist()[:5] == [[], [], ["no item"], ["nothing", "known"], []]


def test_a_place_that_cannot_be_written_is_named(histories: Path, make_student: MakeStudent, tmp_path: Path) -> None:
    rows = answered(pq.read_table(histories), make_student(), k=3, exclude_history=True)
    context = type("Context", (), {"task_idx": 0})
    (tmp_path / "none").write_text("a file")
    with pytest.raises(OutputError, match=f"answers cannot be written to {tmp_path} "):
        Shards(tmp_path / "none").write([rows], context)


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
def test_a_file_is_answered_in_order_and_mistakes_are_one_line(
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
    assert [pq.read_metadata(shard).num_rows for shard in shards] == [4, 4, 4, 4, 4, 4, 1]
    answers = pa.concat_tables(map(pq.read_table, shards))
    expected = Recommender(student).recommend([history or [] for history in HISTORIES], 3)
    assert answers["user"].to_pylist() == [f"u{at}" for at in range(25)]
    for column in ("item_ids", "titles", "scores", "skipped"):
        assert answers[column].combine_chunks().equals(expected[column].combine_chunks())
    counts = {"histories": 25, "without_items": 15, "with_skipped": 10, "skipped": 15}
    assert read_manifest(output, "recommend").counts == counts
    assert "25 histories in " in capsys.readouterr().out
    with pytest.raises(StudentError, match="k = 20, but 18 items are left"):
        recommend(RecommendConfig(k=20, output=tmp_path / "refused", **settings))
    assert not (tmp_path / "refused").exists()
    content = bytearray((histories / "b.parquet").read_bytes())
    content[4:100] = bytes(96)
    (histories / "b.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"histories cannot be read as Parquet: "):
        recommend_many(RecommendConfig(**settings), histories, student, Draft(tmp_path))


@pytest.mark.engine
def test_large_shards_keep_the_order_of_their_rows(ray_local: None, make_student: MakeStudent, tmp_path: Path) -> None:
    rows = 300_000
    histories = pa.array([["i1"]], pa.list_(pa.string())).take(pa.array([0] * rows))
    pq.write_table(pa.table({"row": range(rows), "history": histories}), tmp_path / "many.parquet")
    asked = {"model": str(make_student()), "histories": tmp_path / "many.parquet", "k": 1, "rows_per_shard": 200_000}
    output = recommend(RecommendConfig(output=tmp_path / "out", **asked))
    answers = [pq.read_table(shard, columns=["row"]) for shard in sorted(output.glob("part-*.parquet"))]
    assert [len(answer) for answer in answers] == [200_000, 100_000]
    assert pa.concat_tables(answers)["row"].to_pylist() == list(range(rows))
