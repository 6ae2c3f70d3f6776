"""The verb, under Ray Train and DeepSpeed."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import ray
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.config import DeepSpeedConfig, ResourcesConfig
from cluster.errors import ConfigError, OutputError, StaleInputError
from cluster.storage import fingerprint, read_manifest
from data_prep.reading import read_titles
from teacher_infer.locate import locate_teacher
from teacher_train.config import LoraConfig, TeacherModelConfig, TrainTeacherConfig
from teacher_train.examples import IGNORED, Slice, encode, read_slice
from teacher_train.train import train_teacher, verdict
from tests.teacher_fixtures import ROWS, TITLES, write_dataset

TWO = ResourcesConfig(workers=2)


def encoded(dataset, split, tokenizer, max_tokens, learn_from="response"):
    rows = read_slice(dataset, split, Slice(0, 1, None, 0))
    return encode(rows, read_titles(dataset), tokenizer, max_tokens, learn_from)


def validation_loss(teacher, dataset, adapter=None, max_tokens=512):
    """Recomputed outside of the training, row by row."""
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval()
    model = PeftModel.from_pretrained(model, adapter) if adapter else model
    losses = []
    for example in encoded(dataset, "validation", tokenizer, max_tokens).examples:
        with torch.inference_mode():
            chances = model(torch.tensor(example["input_ids"][None].astype(int))).logits[0].log_softmax(-1)
        at = [place for place, label in enumerate(example["labels"]) if label != IGNORED]
        losses += [-chances[place - 1, int(example["labels"][place])].item() for place in at]
    return sum(losses) / len(losses)


@pytest.mark.engine
def test_the_teacher_written_is_the_best_one(tiny_teacher):
    """Two workers under ZeRO stage 1."""
    manifest = read_manifest(tiny_teacher.teacher, "train-teacher")
    assert validation_loss(*reversed(tiny_teacher)) == pytest.approx(manifest.metrics["validation_loss"], rel=1e-4)
    assert manifest.metrics["validation_loss"] < 1 < manifest.metrics["guessing_loss"]
    assert verdict(manifest.metrics) == f"validation loss {manifest.metrics['validation_loss']:.4f}"
    assert manifest.metrics["tokens_per_second"] > 0
    assert manifest.counts["rows"] == ROWS["train"]
    assert manifest.counts["steps"] == manifest.config["epochs"] * ROWS["train"] // 2 // 8
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher.teacher)
    tokens = sum(len(row["input_ids"]) for row in encoded(tiny_teacher.dataset, "train", tokenizer, 512).examples)
    assert manifest.counts["tokens"] == manifest.config["epochs"] * tokens
    assert manifest.inputs["dataset"] == read_manifest(tiny_teacher.dataset).fingerprint


@pytest.mark.engine
def test_patience_ends_a_training_from_another_teacher_and_the_driver_may_die_before_it_takes_the_best(
    tiny_teacher, tmp_path, monkeypatch
):
    """Two workers under ZeRO stage 0; the learning rate rises from 0 to one that ruins the teacher."""
    config = TrainTeacherConfig(
        dataset=tiny_teacher.dataset,
        start_from=tiny_teacher.teacher,
        epochs=2,
        micro_batch=8,
        max_rows=64,
        learning_rate=0.5,
        warmup=0.9,
        evaluations=4,
        patience=2,
        save_precision="bf16",
        resources=TWO,
        output=tmp_path / "tuned",
    )

    def fail(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as full_disk, pytest.raises(OSError, match="no space left"):
        full_disk.setattr("cluster.workers.copy_into", fail)
        train_teacher(config)
    teacher = train_teacher(config)
    manifest = read_manifest(teacher)
    assert manifest.counts["steps"] == 3
    assert manifest.counts["rows"] == 64
    first = read_manifest(tiny_teacher.teacher).metrics["validation_loss"]
    assert manifest.metrics["validation_loss"] == pytest.approx(first, rel=1e-3)
    assert validation_loss(teacher, tiny_teacher.dataset) == pytest.approx(first, abs=0.02)
    assert {value.dtype for value in load_file(teacher / "model.safetensors").values()} == {torch.bfloat16}


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
        deepspeed=DeepSpeedConfig(zero_stage=3, gradient_accumulation=2, offload="cpu"),
        resources=TWO,
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
    """Two workers under ZeRO stage 2 in half precision; long histories lose their oldest titles."""
    dataset = write_dataset(tmp_path / "long", [f"{title}, {title}, {title}, {title}" for title in TITLES])
    config = TrainTeacherConfig(
        dataset=dataset,
        start_from=tiny_teacher.teacher,
        lora=LoraConfig(rank=4, merge=False),
        learn_from="titles",
        attention="eager",
        max_tokens=64,
        epochs=1,
        micro_batch=8,
        deepspeed=DeepSpeedConfig(zero_stage=2, precision="bf16", offload="cpu"),
        resources=TWO,
        resume=False,
        output=tmp_path / "teacher",
    )
    teacher = train_teacher(config)
    manifest = read_manifest(teacher)
    located = locate_teacher(str(teacher), "ground", dataset, read_manifest(dataset))
    assert located == (tiny_teacher.teacher, teacher / "adapter")
    assert not list(teacher.glob("*.safetensors"))
    loss = validation_loss(located.model, dataset, located.adapter, max_tokens=64)
    assert loss == pytest.approx(manifest.metrics["validation_loss"], rel=0.02)
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    dropped = [encoded(dataset, split, tokenizer, 64).dropped for split in ("train", "validation")]
    assert manifest.counts["dropped_history_titles"] == sum(dropped) > 0


@pytest.mark.engine
def test_the_same_command_resumes_after_a_kill(tiny_teacher, tmp_path):
    """The driver is killed and run again; the teacher is the one that an undisturbed run made."""
    manifest = read_manifest(tiny_teacher.teacher)
    config = TrainTeacherConfig.model_validate(manifest.config).model_copy(
        update={"resume": True, "save_steps": 3, "output": tmp_path / "teacher"}
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from teacher_train.train import *;"
        "train_teacher(TrainTeacherConfig.model_validate_json(Path(sys.argv[1]).read_text()))"
    )
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    driver = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "config.json")], env=environment)
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


@pytest.mark.engine
def test_a_loss_that_is_not_finite_is_refused(tiny_teacher, tmp_path):
    shutil.copytree(tiny_teacher.teacher, tmp_path / "broken")
    lm = AutoModelForCausalLM.from_pretrained(tiny_teacher.teacher)
    lm.get_input_embeddings().weight.data[:] = torch.nan
    lm.save_pretrained(tmp_path / "broken")
    config = TrainTeacherConfig(
        dataset=tiny_teacher.dataset, start_from=tmp_path / "broken", output=tmp_path / "teacher"
    )
    with pytest.raises(ConfigError, match="the loss is nan at step 0: lower --learning-rate"):
        train_teacher(config)
    assert not (tmp_path / ".teacher.checkpoints").exists()


@pytest.mark.engine
def test_a_teacher_that_diverged_is_called_so(tiny_teacher, tmp_path, capsys):
    config = TrainTeacherConfig.model_validate(read_manifest(tiny_teacher.teacher).config).model_copy(
        update={
            "epochs": 1,
            "learning_rate": 1.0,
            "warmup": 0.0,
            "resources": ResourcesConfig(),
            "output": tmp_path / "t",
        }
    )
    metrics = read_manifest(train_teacher(config)).metrics
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher.teacher)
    examples = encoded(tiny_teacher.dataset, "validation", tokenizer, 512).examples
    labels = torch.cat([torch.tensor(example["labels"][example["labels"] != IGNORED]).long() for example in examples])
    share = labels.bincount().double() / len(labels)
    assert metrics["guessing_loss"] == pytest.approx(-torch.xlogy(share, share).sum().item())
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"validation loss \S+, no better than guessing .* lower --learning-rate", said)


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
