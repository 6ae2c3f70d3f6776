"""What the verb ``train`` refuses, or says, before it starts."""

import shutil
from pathlib import Path

import pytest

from cluster.config import DeepSpeedConfig
from cluster.errors import ConfigError, StaleInputError, TrainingError
from cluster.storage import MANIFEST_FILE, read_manifest
from data_prep.schema import EMBEDDINGS_FILE
from student_train.config import DistillationConfig
from student_train.train import check_inputs, say_if_unjudged, train
from student_train.worker import load_data
from tests.student_train.test_train import config


def test_a_missing_data_set_names_the_verb_to_run(tmp_path: Path) -> None:
    with pytest.raises(StaleInputError, match=r"run `dllm2rec prepare"):
        check_inputs(config(tmp_path / "nothing", tmp_path / "student"))


def without_metrics(path: Path, copy: Path, prefix: str) -> Path:
    """A copy of a directory whose manifest lacks the metrics of this prefix."""
    shutil.copytree(path, copy)
    manifest = read_manifest(copy)
    manifest.metrics = {name: value for name, value in manifest.metrics.items() if not name.startswith(prefix)}
    (copy / MANIFEST_FILE).write_text(manifest.model_dump_json())
    return copy


def test_a_data_set_without_yardsticks_is_refused(dataset: Path, tmp_path: Path) -> None:
    copy = without_metrics(dataset, tmp_path / "dataset", "")
    with pytest.raises(StaleInputError, match=r"made by an earlier version, without yardsticks: run `prepare` again"):
        check_inputs(config(copy, tmp_path / "student"))


def test_the_yardstick_does_not_depend_on_the_number_of_workers(dataset: Path, labels: Path, tmp_path: Path) -> None:
    settings = config(dataset, tmp_path / "student", labels=labels)
    found = [load_data(settings, rank, size).yardstick for rank, size in ((0, 1), (0, 2), (1, 2), (7, 8))]
    assert all(one == found[0] for one in found)
    assert found[0]["ndcg@20"] == read_manifest(dataset).metrics["transitions_validation_ndcg@20"] > 0


def test_a_teacher_is_judged_on_validation_rows_or_not_at_all(
    dataset: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = tmp_path / "measured"
    shutil.copytree(labels, measured)
    manifest = read_manifest(measured)
    manifest.metrics |= {"train_ndcg@20": 0.1, "validation_ndcg@20": 0.2, "validation_hr@20": 0.3}
    (measured / MANIFEST_FILE).write_text(manifest.model_dump_json())
    settings = config(dataset, tmp_path / "student", labels=measured)
    say_if_unjudged(settings)
    assert load_data(settings).teacher_ndcg == {"ndcg@20": 0.2}
    assert capsys.readouterr().out == ""
    train_alone = without_metrics(measured, tmp_path / "train alone", "validation")
    settings = settings.model_copy(update={"labels": train_alone})
    say_if_unjudged(settings)
    assert load_data(settings).teacher_ndcg == {}
    said = capsys.readouterr().out
    assert "train alone holds no labels of validation rows: the teacher is followed in full" in said
    assert said.count("\n") == 1
    say_if_unjudged(settings.model_copy(update={"distillation": DistillationConfig(teacher_threshold=0)}))
    assert capsys.readouterr().out == ""


def test_a_student_longer_than_any_history_is_refused(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    manifest = read_manifest(copy)
    manifest.config["max_history"] = 10
    (copy / MANIFEST_FILE).write_text(manifest.model_dump_json())
    settings = config(copy, tmp_path / "student")
    assert check_inputs(settings)
    long = settings.model_copy(update={"model": settings.model.model_copy(update={"max_length": 11})})
    with pytest.raises(ConfigError, match=r"max_length` = 11, but .* keeps 10 items .* --max-history 11"):
        check_inputs(long)


def test_more_accumulation_than_batches_is_refused_before_the_start(dataset: Path, tmp_path: Path) -> None:
    settings = config(dataset, tmp_path / "student", deepspeed=DeepSpeedConfig(gradient_accumulation=1000))
    with pytest.raises(TrainingError, match="gradient_accumulation` = 1000"):
        train(settings)


def test_labels_of_another_data_set_are_refused(dataset: Path, labels: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dataset"
    copy.mkdir()
    manifest = (dataset / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace(read_manifest(dataset).fingerprint, "0" * 64))
    with pytest.raises(StaleInputError, match=r"was made from another dataset"):
        check_inputs(config(copy, tmp_path / "student", labels=labels))


def test_a_list_longer_than_the_stored_one_is_refused(dataset: Path, labels: Path, tmp_path: Path) -> None:
    settings = config(dataset, tmp_path / "s", labels=labels, distillation=DistillationConfig(top_k=21))
    with pytest.raises(ConfigError, match=r"top_k. = 21, but .* holds lists of 20"):
        check_inputs(settings)


@pytest.mark.parametrize(
    ("distillation", "needed"),
    [({}, "embedding. = both"), ({"strategy": "hint", "embedding": "none"}, "strategy. = hint")],
)
def test_labels_without_what_the_strategy_needs_are_refused(
    dataset: Path, labels: Path, tmp_path: Path, distillation: dict[str, str], needed: str
) -> None:
    shutil.copytree(labels, tmp_path / "labels")
    (tmp_path / "labels" / EMBEDDINGS_FILE).unlink()
    taught = DistillationConfig(**distillation)
    settings = config(dataset, tmp_path / "s", labels=tmp_path / "labels", distillation=taught)
    with pytest.raises(StaleInputError, match=f"{needed} needs: run `dllm2rec label` again"):
        check_inputs(settings)
    ranking_alone = settings.model_copy(update={"distillation": DistillationConfig(embedding="none")})
    assert set(check_inputs(ranking_alone)) == {"dataset", "labels", "teacher"}
