"""The verb, under Ray Train and DeepSpeed."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.errors import ConfigError, OutputError, StaleInputError
from cluster.storage import read_manifest
from data_prep.reading import read_titles
from teacher_train.config import ModelConfig, TrainTeacherConfig
from teacher_train.examples import IGNORED, Slice, encode, read_slice
from teacher_train.train import train_teacher
from tests.teacher_fixtures import ROWS, TITLES


def validation_loss(teacher, dataset):
    """Recomputed outside of the training, token by token, without batches."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval()
    rows = read_slice(dataset, "validation", Slice(0, 1, None, 0))
    losses = []
    for example in encode(rows, read_titles(dataset), tokenizer, 512, "response").examples:
        with torch.inference_mode():
            chances = model(torch.tensor([example.tokens])).logits[0].log_softmax(-1)
        at = [place for place, label in enumerate(example.labels) if label != IGNORED]
        losses += [-chances[place - 1, example.labels[place]].item() for place in at]
    return sum(losses) / len(losses)


@pytest.mark.engine
def test_the_teacher_written_is_the_best_one(tiny_teacher):
    manifest = read_manifest(tiny_teacher.teacher, "train-teacher")
    assert validation_loss(*reversed(tiny_teacher)) == pytest.approx(manifest.metrics["validation_loss"], rel=1e-4)
    assert manifest.metrics["validation_loss"] < 1
    assert manifest.metrics["tokens_per_second"] > 0
    assert manifest.counts["rows"] == ROWS["train"]
    assert manifest.counts["steps"] == 16 * ROWS["train"] // 2 // 8
    assert manifest.inputs["dataset"] == read_manifest(tiny_teacher.dataset).fingerprint


@pytest.mark.engine
def test_a_teacher_can_start_from_another(tiny_teacher, tmp_path):
    config = TrainTeacherConfig(
        dataset=tiny_teacher.dataset,
        start_from=tiny_teacher.teacher,
        epochs=1,
        micro_batch=8,
        learning_rate=1e-6,
        max_rows=16,
        output=tmp_path / "tuned",
    )
    first = read_manifest(tiny_teacher.teacher).metrics["validation_loss"]
    tuned = read_manifest(train_teacher(config))
    assert tuned.metrics["validation_loss"] == pytest.approx(first, rel=0.02)
    assert tuned.counts["rows"] == 16
    assert tuned.counts["steps"] == 2


def test_head_size_is_checked_before_work_starts(tiny_dataset, tmp_path):
    with pytest.raises(ConfigError, match="heads of size 16"):
        train_teacher(
            TrainTeacherConfig(dataset=tiny_dataset, model=ModelConfig(width=64, heads=4), output=tmp_path / "teacher")
        )
    assert not (tmp_path / "teacher").exists()


def test_a_missing_data_set_is_refused(tmp_path):
    with pytest.raises(StaleInputError, match="dllm2rec prepare"):
        train_teacher(TrainTeacherConfig(dataset=tmp_path / "nothing", output=tmp_path / "teacher"))


def test_an_output_that_holds_something_else_is_refused(tiny_dataset, tmp_path):
    (tmp_path / "notes.txt").write_text(TITLES[0])
    with pytest.raises(OutputError):
        train_teacher(TrainTeacherConfig(dataset=tiny_dataset, output=tmp_path))
