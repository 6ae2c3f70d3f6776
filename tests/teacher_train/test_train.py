"""The verb, under Ray Train and DeepSpeed."""

import subprocess
import sys
import time

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.config import DeepSpeedConfig, ResourcesConfig
from cluster.errors import ConfigError, OutputError, StaleInputError
from cluster.storage import fingerprint, read_manifest
from data_prep.reading import read_titles
from teacher_infer.locate import locate_teacher
from teacher_train.config import LoraConfig, TeacherModelConfig, TrainTeacherConfig
from teacher_train.examples import IGNORED, Slice, encode, read_slice
from teacher_train.train import train_teacher
from tests.teacher_fixtures import ROWS, TITLES


def validation_loss(teacher, dataset, adapter=None):
    """Recomputed outside of the training, token by token, without batches."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval()
    model = PeftModel.from_pretrained(model, adapter) if adapter else model
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


@pytest.mark.engine
def test_adapters_train_partitioned_and_packed_and_are_merged(tiny_teacher, tmp_path):
    """Two workers under ZeRO stage 3, with all that saves memory."""
    before = fingerprint(tiny_teacher.teacher)
    config = TrainTeacherConfig(
        dataset=tiny_teacher.dataset,
        start_from=tiny_teacher.teacher,
        lora=LoraConfig(rank=4),
        packing=True,
        gradient_checkpointing=True,
        max_tokens=256,
        epochs=2,
        micro_batch=2,
        learning_rate=2e-3,
        deepspeed=DeepSpeedConfig(zero_stage=3, gradient_accumulation=2),
        resources=ResourcesConfig(workers=2),
        output=tmp_path / "merged",
    )
    teacher = train_teacher(config)
    manifest = read_manifest(teacher)
    loss = manifest.metrics["validation_loss"]
    assert validation_loss(teacher, tiny_teacher.dataset) == pytest.approx(loss, rel=1e-4)
    assert loss != read_manifest(tiny_teacher.teacher).metrics["validation_loss"]
    assert manifest.inputs["start_from"] == before == fingerprint(tiny_teacher.teacher)
    assert manifest.counts["steps"] < config.epochs * ROWS["train"] / 2 / 2 / 2
    assert not (teacher / "adapter").exists()


@pytest.mark.engine
def test_adapters_can_stay_apart(tiny_teacher, tmp_path):
    config = TrainTeacherConfig(
        dataset=tiny_teacher.dataset,
        start_from=tiny_teacher.teacher,
        lora=LoraConfig(rank=4, merge=False),
        epochs=1,
        micro_batch=8,
        max_rows=64,
        deepspeed=DeepSpeedConfig(zero_stage=2, precision="bf16"),
        output=tmp_path / "teacher",
    )
    teacher = train_teacher(config)
    dataset = read_manifest(tiny_teacher.dataset)
    located = locate_teacher(str(teacher), "ground", tiny_teacher.dataset, dataset)
    assert located == (tiny_teacher.teacher, teacher / "adapter")
    assert not list(teacher.glob("*.safetensors"))
    assert validation_loss(located.model, tiny_teacher.dataset, located.adapter) == pytest.approx(
        read_manifest(teacher).metrics["validation_loss"], rel=0.02
    )


@pytest.mark.engine
def test_the_same_command_goes_on_after_a_kill(tiny_teacher, tmp_path):
    """The driver is killed and run again; the teacher is the one that an undisturbed run made."""
    manifest = read_manifest(tiny_teacher.teacher)
    config = TrainTeacherConfig.model_validate(manifest.config).model_copy(
        update={"resume": True, "output": tmp_path / "teacher"}
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from teacher_train.train import *;"
        "train_teacher(TrainTeacherConfig.model_validate_json(Path(sys.argv[1]).read_text()))"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "config.json")])
    kept = tmp_path / ".teacher.checkpoints"
    while not list(kept.glob("*/checkpoint_manager_snapshot.json")):
        assert driver.poll() is None
        time.sleep(0.1)
    driver.kill()
    driver.wait()
    again = read_manifest(train_teacher(config))
    assert again.metrics["validation_loss"] == pytest.approx(manifest.metrics["validation_loss"], rel=1e-6)
    assert 0 < again.counts["resumed_at_step"] < again.counts["steps"]
    assert again.counts == manifest.counts | {"resumed_at_step": again.counts["resumed_at_step"]}
    assert not kept.exists()


def test_head_size_is_checked_before_work_starts(tiny_dataset, tmp_path):
    with pytest.raises(ConfigError, match="heads of size 16"):
        train_teacher(
            TrainTeacherConfig(
                dataset=tiny_dataset, model=TeacherModelConfig(hidden_size=64, num_heads=4), output=tmp_path / "teacher"
            )
        )
    assert not (tmp_path / "teacher").exists()


def test_a_missing_data_set_is_refused(tmp_path):
    with pytest.raises(StaleInputError, match="dllm2rec prepare"):
        train_teacher(TrainTeacherConfig(dataset=tmp_path / "nothing", output=tmp_path / "teacher"))


def test_an_output_that_holds_something_else_is_refused(tiny_dataset, tmp_path):
    (tmp_path / "notes.txt").write_text(TITLES[0])
    with pytest.raises(OutputError):
        train_teacher(TrainTeacherConfig(dataset=tiny_dataset, output=tmp_path))
