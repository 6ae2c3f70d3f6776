"""What a worker has to see, on one machine: marks, inputs and folders that differ are told apart."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.probe import Probe, look


def made(folder: Path, inputs: Mapping[str, Path]) -> Probe:
    folder.mkdir(exist_ok=True)
    (folder / ".student.probe").write_text("a token")
    looks = {option: (path, look(path)) for option, path in inputs.items()}
    return Probe(folder / ".student.probe", "a token", folder / "student", looks, "head")


def dataset(path: Path, manifest: str) -> Path:
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(manifest)
    return path


def test_who_sees_the_same_passes_and_leaves_nothing(tmp_path: Path) -> None:
    probe = made(tmp_path / "runs", {"dataset": dataset(tmp_path / "dataset", "{}")})
    probe.check()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".student.probe"]


def test_a_folder_of_the_same_name_on_another_disk_is_told_apart(tmp_path: Path) -> None:
    probe = made(tmp_path / "runs", {})
    (tmp_path / "runs" / ".student.probe").unlink()
    with pytest.raises(ClusterError, match=rf"node .* does not see --output {tmp_path}/runs/student as head does"):
        probe.check()
    (tmp_path / "runs" / ".student.probe").write_text("the token of another job")
    with pytest.raises(ClusterError, match="does not see --output"):
        probe.check()


@pytest.mark.parametrize("other", [None, '{"fingerprint": "of another"}'])
def test_an_input_that_is_absent_or_another_one_is_named(tmp_path: Path, other: str | None) -> None:
    path = dataset(tmp_path / "dataset", "{}")
    probe = made(tmp_path / "runs", {"dataset": path})
    shutil.rmtree(path)
    if other:
        dataset(path, other)
    with pytest.raises(ClusterError, match=rf"does not see --dataset {path} as head does"):
        probe.check()


def test_a_model_without_a_manifest_is_told_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    probe = made(tmp_path / "runs", {"teacher": tmp_path / "model"})
    probe.check()
    (tmp_path / "model" / "model.safetensors").write_text("weights")
    with pytest.raises(ClusterError, match="does not see --teacher"):
        probe.check()


def test_a_place_that_cannot_be_written_is_named_with_the_systems_words(tmp_path: Path) -> None:
    probe = made(tmp_path / "runs", {})
    probe = replace(probe, mark=Path("/proc/self/comm"), token=Path("/proc/self/comm").read_text())
    with pytest.raises(ClusterError, match=r"cannot write to .*/runs, where --output goes \(.+\)"):
        probe.check()
