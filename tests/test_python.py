"""The Python API, and the examples of its page as they are written."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dllm2rec
from cluster.errors import ConfigError, ModelError, StaleInputError
from student_train.config import TrainConfig
from tests.conftest import MakeStudent

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


@pytest.mark.engine
def test_the_page_runs_as_written(ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, namespace)
    answer, scores, student = (namespace[name] for name in ("answer", "scores", "student"))
    assert [len(titles) for titles in answer["titles"]] == [5, 5]
    assert not set(answer["titles"][0]) & set(namespace["history"])
    assert scores.shape == (1, len(student.titles))


@pytest.mark.engine
def test_the_notebook_runs_from_top_to_bottom(ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace: dict[str, object] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), namespace)
    table, answer = namespace["table"], namespace["answer"]
    assert table["distilled"]["HR@20"] > table["plain"]["HR@20"]
    assert table["distilled"]["HR@20 unseen"] > table["plain"]["HR@20 unseen"]
    assert [len(titles) for titles in answer["titles"]] == [5, 5]


def test_every_verb_is_a_function_and_every_config_a_class() -> None:
    for name in dllm2rec.VERBS:
        assert callable(getattr(dllm2rec, name.replace("-", "_")))
    assert dllm2rec.TrainConfig is TrainConfig
    assert {"train", "TrainConfig", "load_student"} <= set(dir(dllm2rec))
    with pytest.raises(AttributeError, match="no attribute `teach`"):
        dllm2rec.teach  # noqa: B018


def test_a_wrong_setting_is_one_line() -> None:
    with pytest.raises(ConfigError, match="`epochs` = 0: Input should be greater than or equal to 1"):
        dllm2rec.train(epochs=0)
    with pytest.raises(ConfigError, match="prepare takes a PrepareConfig, or its fields by keyword; not a TrainConfig"):
        dllm2rec.prepare(TrainConfig())
    with pytest.raises(ConfigError, match="give a config or fields, not both"):
        dllm2rec.train(TrainConfig(), epochs=3)


def test_a_student_answers_lists_series_and_frames_alike(make_student: MakeStudent) -> None:
    student = dllm2rec.load_student(make_student())
    histories = [["i3", "Title 5"], [], ["nobody"]]
    lists = student.recommend(histories, k=4)
    frame = pd.DataFrame({"history": histories, "user": [7, 8, 9]}, index=["a", "b", "c"])
    for given in (frame, frame["history"]):
        answer = student.recommend(given, k=4)
        assert list(answer.index) == ["a", "b", "c"]
        assert answer.reset_index(drop=True).equals(lists)
    assert lists["skipped"].tolist() == [[], [], ["nobody"]]
    assert lists["item_ids"][1] == lists["item_ids"][2]


def test_scores_rank_what_is_recommended(make_student: MakeStudent) -> None:
    student = dllm2rec.load_student(make_student())
    scores = student.score([["i3", "i5"]])
    assert scores.shape == (1, 20)
    best = student.recommend([["i3", "i5"]], k=3, exclude_history=False)["scores"][0]
    assert np.allclose(np.sort(scores[0])[::-1][:3], best)


def test_what_is_no_student_or_history_is_one_line(make_student: MakeStudent, tmp_path: Path) -> None:
    with pytest.raises(StaleInputError, match="holds no finished output"):
        dllm2rec.load_student(tmp_path / "nothing")
    student = dllm2rec.load_student(make_student())
    with pytest.raises(ModelError, match="no column `history`: it has user"):
        student.recommend(pd.DataFrame({"user": [1]}))
    with pytest.raises(ModelError, match="k = 21"):
        student.recommend([[]], k=21)
    with pytest.raises(ModelError, match="is one text, not a list"):
        student.score(["i3"])
