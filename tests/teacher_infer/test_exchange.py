"""The official code's files out and in again, pickles that are not trusted, and files that do not fit."""

import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.errors import DataError, StaleInputError
from cluster.storage import read_manifest
from data_prep.official_rows import read_frame
from data_prep.schema import SPLITS, label_files
from student_train.config import TrainConfig
from student_train.train import check_inputs
from student_train.worker import load_data
from teacher_infer.exchange import export_labels, import_labels
from teacher_infer.exchange_config import ExportConfig, ImportConfig
from teacher_infer.official_labels import read_embeddings
from tests.student_train.conftest import N_ITEMS, ROWS, STORED_K, dataset, labels

__all__ = ["dataset", "labels"]


@pytest.fixture
def files(dataset: Path, labels: Path, tmp_path: Path) -> Path:
    return export_labels(ExportConfig(dataset=dataset, labels=labels, output=tmp_path / "files"))


def imported(files: Path, **settings: object) -> Path:
    return import_labels(ImportConfig(files=files, output=files.parent / "imported", **settings))


def column(path: Path, folder: str, name: str) -> list[object]:
    table = pa.concat_tables(pq.read_table(file) for file in sorted((path / folder).glob("*.parquet")))
    return table.sort_by("row_id")[name].to_pylist()


def test_the_exported_files_are_those_of_the_official_code(files: Path) -> None:
    train, statistics = pd.read_pickle(files / "train_data.df"), pd.read_pickle(files / "data_statis.df")
    assert list(train.columns) == ["seq", "len_seq", "next"]
    assert (len(train), statistics["item_num"][0], statistics["seq_size"][0]) == (ROWS["train"], N_ITEMS, 7)
    for history, length in zip(train["seq"], train["len_seq"], strict=True):
        assert len(history) == 7
        assert set(history[length:]) <= {N_ITEMS}
        assert N_ITEMS not in history[:length]
    test = pd.read_csv(files / "test_data.csv")
    assert test["seq"][0].startswith("[")
    assert len(test) == ROWS["test"]
    assert np.loadtxt(files / "myrank_train.txt").shape == (ROWS["train"], STORED_K)
    assert torch.load(files / "all_embeddings.pt").shape == (N_ITEMS, 16)


def test_what_is_exported_comes_back(files: Path, dataset: Path, labels: Path) -> None:
    back = imported(files, titles=files / "titles.csv", rows_per_shard=100)
    for split in SPLITS:
        for name in ("history", "target"):
            assert column(back / "dataset", f"sequences/{split}", name) == column(dataset, f"sequences/{split}", name)
    for name in ("items", "scores"):
        assert column(back / "labels", "labels/train", name) == column(labels, "labels/train", name)
    titles = pq.read_table(back / "dataset" / "items.parquet")["title"].to_pylist()
    assert titles == [f"Title {number}" for number in range(N_ITEMS)]
    manifest = read_manifest(back / "labels")
    assert manifest.metrics["train_hr@20"] == 1.0
    assert (manifest.config["ranking"], manifest.config["top_k"]) == ("imported", STORED_K)


def test_a_student_trains_on_imported_files(files: Path) -> None:
    back = imported(files)
    config = TrainConfig(dataset=back / "dataset", labels=back / "labels")
    check_inputs(config)
    materials = load_data(config)
    assert (len(materials.train), materials.total_rows) == (ROWS["train"], ROWS["train"])
    assert materials.teacher_ndcg == {}  # no validation rows are labelled
    assert materials.yardstick["ndcg@20"] > 0.9
    assert materials.train.teacher.items[:, 0].tolist() == materials.train.target.tolist()


def test_the_true_item_off_the_list_gets_the_lists_last_distance(files: Path) -> None:
    ranking = np.loadtxt(files / "myrank_train.txt", dtype=int)
    ranking[3, 0] = (ranking[3, 0] + STORED_K) % N_ITEMS
    np.savetxt(files / "myrank_train.txt", ranking, fmt="%d")
    scores = column(imported(files) / "labels", "labels/train", "target_score")
    assert scores[3] == pytest.approx(0.1 * (STORED_K - 1))
    assert scores[2] == 0.0


def test_rows_without_history_are_dropped_with_their_labels(files: Path) -> None:
    train = pd.read_parquet(files / "train_data.parquet")
    train.loc[5, "len_seq"] = 0
    train.to_parquet(files / "train_data.parquet")
    ranking = np.loadtxt(files / "myrank_train.txt", dtype=int)
    back = imported(files)
    items = column(back / "labels", "labels/train", "items")
    assert items == np.delete(ranking, 5, 0).tolist()
    assert read_manifest(back).counts["rows_without_history"] == 1


def test_items_counted_from_1_are_suspected(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranking = np.loadtxt(files / "myrank_train.txt", dtype=int) + 1
    np.savetxt(files / "myrank_train.txt", ranking.clip(max=N_ITEMS - 1), fmt="%d")
    imported(files)
    said = r"the teacher has HR@20 0\.0\d+, and 0\.9\d+ with every item number one less: count items from 0"
    assert re.search(said, capsys.readouterr().out)
    np.savetxt(files / "myrank_train.txt", ranking, fmt="%d")
    with pytest.raises(DataError, match=rf"{N_ITEMS} is no item in 0 … {N_ITEMS - 1}: count items from 0"):
        imported(files, overwrite=True)


def without_companions(files: Path) -> Path:
    """As the official code has them: two of the files are pickles."""
    for file in files.glob("*.parquet"):
        file.unlink()
    return files


def contents(back: Path) -> list[list[object]]:
    return [column(back / "dataset", f"sequences/{split}", name) for split in SPLITS for name in ("history", "target")]


def test_pickles_are_read_only_if_they_are_trusted(files: Path) -> None:
    expected = contents(imported(files))
    without_companions(files)
    with pytest.raises(DataError, match=r"data_statis\.df is a pickle.*add --trust-pickles True or"):
        imported(files, overwrite=True)
    assert contents(imported(files, overwrite=True, trust_pickles=True)) == expected


def test_the_error_says_how_to_convert_a_pickle(files: Path) -> None:
    expected = contents(imported(files))
    without_companions(files)
    for name in ("data_statis", "train_data"):
        with pytest.raises(DataError, match=rf"{name}\.df is a pickle") as caught:
            imported(files, overwrite=True)
        command = shlex.split(str(caught.value).partition("write it as Parquet: ")[2])
        subprocess.run([sys.executable, *command[1:]], check=True)
    assert contents(imported(files, overwrite=True)) == expected


class Harmful:
    """A pickle of this runs a command where it is read."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_a_pickle_that_is_not_trusted_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "train_data.df").write_bytes(pickle.dumps(Harmful(tmp_path / "run")))
    with pytest.raises(DataError, match="is a pickle, and a pickle can run any program"):
        read_frame(tmp_path, "train_data", trust_pickles=False)
    torch.save(Harmful(tmp_path / "run"), tmp_path / "all_embeddings.pt")
    with pytest.raises(DataError, match=r"all_embeddings\.pt is not a saved tensor"):
        read_embeddings(tmp_path / "all_embeddings.pt", N_ITEMS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "damage", [b"", b"nonsense", pickle.dumps([1]), pickle.dumps({"a": 1})[:-3], b"cno.such\nthing\n."]
)
def test_a_trusted_pickle_that_is_no_frame_is_refused_in_one_line(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "train_data.df").write_bytes(damage)
    with pytest.raises(DataError, match=r"train_data\.df (cannot be read|holds a list, not a data frame)") as caught:
        read_frame(tmp_path, "train_data", trust_pickles=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["parquet", "csv", "df"])
def test_every_file_may_be_parquet_csv_or_a_pickle(files: Path, ending: str) -> None:
    expected = contents(imported(files))
    for name in ("train_data", "val_data", "test_data", "data_statis"):
        file, frame = read_frame(files, name, trust_pickles=True)
        for other in files.glob(f"{name}.*"):
            other.unlink()
        if "seq" in frame and file.suffix == ".parquet":
            frame["seq"] = frame["seq"].map(np.ndarray.tolist)
        write = {"parquet": frame.to_parquet, "csv": partial(frame.to_csv, index=False), "df": frame.to_pickle}[ending]
        write(files / f"{name}.{ending}")
    assert contents(imported(files, overwrite=True, trust_pickles=True)) == expected


def _spoil(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def spoil(files: Path) -> None:
        train = pd.read_parquet(files / "train_data.parquet")
        change(train).to_parquet(files / "train_data.parquet")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda files: (files / "val_data.csv").unlink(),
            r"holds no val_data\.parquet or val_data\.csv or val_data\.df",
        ),
        (lambda files: (files / "val_data.csv").write_bytes(b""), "val_data.csv cannot be read"),
        (lambda files: (files / "train_data.parquet").write_bytes(b"x"), "train_data.parquet cannot be read"),
        (_spoil(lambda t: t.rename(columns={"next": "nxt"})), "has no column `next`, only seq, len_seq"),
        (_spoil(lambda t: t.assign(next=N_ITEMS)), rf"row 0: item {N_ITEMS} is not in 0 … {N_ITEMS - 1}"),
        (_spoil(lambda t: t.drop(index=[1])), f"has {ROWS['train']} lines for {ROWS['train'] - 1} train"),
        (lambda files: (files / "myrank_train.txt").write_text("1 x\n"), "myrank_train.txt is not a table of numbers"),
        (
            lambda files: shutil.copy(files / "confidence_train.txt", files / "myrank_train.txt"),
            "line 1: 0.1 is no item in",
        ),
        (lambda files: torch.save(torch.zeros(3, 4), files / "all_embeddings.pt"), r"holds \[3, 4\], not embeddings"),
        (lambda files: (files / "all_embeddings.pt").write_bytes(b"x"), "all_embeddings.pt is not a saved tensor"),
        (lambda files: (files / "titles.csv").write_text("item_id,title\n99,A\n"), "item_id 99 is not in 0"),
    ],
)
def test_files_that_do_not_fit_are_refused_and_leave_nothing(
    files: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(files)
    with pytest.raises(DataError, match=message):
        imported(files, titles=files / "titles.csv")
    assert not (files.parent / "imported").exists()


def test_labels_that_lack_a_row_are_not_exported(dataset: Path, labels: Path, tmp_path: Path) -> None:
    lacking = shutil.copytree(labels, tmp_path / "labels")
    shard = label_files(lacking, "train")[0]
    pq.write_table(pq.read_table(shard).slice(1), shard)
    with pytest.raises(StaleInputError, match=r"holds labels of 239 of 240 train rows.*by line"):
        export_labels(ExportConfig(dataset=dataset, labels=lacking, output=tmp_path / "files"))
    assert not (tmp_path / "files").exists()


def test_labels_of_another_data_set_are_not_exported(dataset: Path, labels: Path, files: Path) -> None:
    other = imported(files) / "dataset"
    with pytest.raises(StaleInputError, match="was made from another dataset"):
        export_labels(ExportConfig(dataset=other, labels=labels, output=files.parent / "again"))
