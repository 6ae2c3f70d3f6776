from pathlib import Path

import pytest

from cluster.errors import ModelError, StaleInputError
from cluster.storage import fingerprint, output_directory, read_manifest
from teacher_infer.locate import locate_teacher
from teacher_train.config import TrainTeacherConfig
from tests.teacher_fixtures import Nothing


def write_teacher(path: Path, dataset: str, config: str = '{"architectures": ["LlamaForCausalLM"]}') -> Path:
    with output_directory(path, verb="train-teacher", config=Nothing(), inputs={"dataset": dataset}) as draft:
        (draft.path / "config.json").write_text(config)
    return path


def locate(teacher, dataset):
    return locate_teacher(str(teacher), "embed", dataset, read_manifest(dataset))


def test_a_teacher_of_this_data_set_is_accepted(tiny_dataset, tmp_path):
    teacher = write_teacher(tmp_path / "teacher", read_manifest(tiny_dataset).fingerprint)
    assert locate(teacher, tiny_dataset) == (teacher, None)


def test_a_teacher_of_another_data_set_is_refused(tiny_dataset, tmp_path):
    teacher = write_teacher(tmp_path / "teacher", "another")
    with pytest.raises(StaleInputError, match="another dataset"):
        locate(teacher, tiny_dataset)


def test_a_teacher_of_another_prompt_cannot_ground(tiny_dataset, tmp_path):
    teacher = write_teacher(tmp_path / "teacher", read_manifest(tiny_dataset).fingerprint)
    with pytest.raises(StaleInputError, match="another prompt"):
        locate_teacher(str(teacher), "ground", tiny_dataset, read_manifest(tiny_dataset))


def test_an_adapter_is_located_with_its_model(tiny_dataset, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    inputs = {"dataset": read_manifest(tiny_dataset).fingerprint, "start_from": fingerprint(base)}
    config = TrainTeacherConfig(start_from=base)
    with output_directory(tmp_path / "teacher", verb="train-teacher", config=config, inputs=inputs) as draft:
        (draft.path / "config.json").write_text("{}")
        (draft.path / "adapter").mkdir()
    assert locate(tmp_path / "teacher", tiny_dataset) == (base, tmp_path / "teacher" / "adapter")
    (base / "config.json").write_text('{"changed": 1}')
    with pytest.raises(StaleInputError, match=r"adapter on the model.*has changed"):
        locate(tmp_path / "teacher", tiny_dataset)


def test_a_foreign_model_without_manifest_is_accepted(tiny_dataset, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert locate(tmp_path, tiny_dataset) == (tmp_path, None)


def test_a_missing_teacher_is_refused(tiny_dataset, tmp_path):
    with pytest.raises(StaleInputError, match=r"no config.json.*train-teacher"):
        locate(tmp_path / "nothing", tiny_dataset)


def test_a_damaged_teacher_config_is_refused(tiny_dataset, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json"):
        locate(tmp_path, tiny_dataset)


def test_minilm_is_the_pip_installed_package(tiny_dataset):
    assert (locate("minilm", tiny_dataset).model / "model.safetensors").is_file()
