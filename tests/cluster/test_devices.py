"""A worker sees the GPUs that its job asks for, and no others."""

import os

import pytest
from deepspeed.accelerator import get_accelerator, real_accelerator
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

from cluster.config import ResourcesConfig
from cluster.engine import on_the_cpu
from cluster.workers import _Worker


@pytest.mark.parametrize(("gpus", "seen"), [(0, ""), (0.5, "3"), (2, "3")])
def test_a_worker_that_asks_for_no_gpu_sees_none(gpus: float, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # as Ray or the machine has it
    found = []
    _Worker(lambda payload: found.append(os.environ["CUDA_VISIBLE_DEVICES"]), ResourcesConfig(gpus=gpus), None)({})
    assert found == [seen]


@pytest.mark.parametrize("variable", ["cuda", None])
def test_an_engine_in_a_users_process_leaves_the_users_gpus_as_they_are(
    variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = CPU_Accelerator()  # stands for a GPU, which none of these machines has
    monkeypatch.setattr(real_accelerator, "ds_accelerator", users)
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    if variable:
        monkeypatch.setenv("DS_ACCELERATOR", variable)
    with pytest.raises(OSError), on_the_cpu():
        assert get_accelerator() is not users
        assert get_accelerator().device_name() == "cpu"
        raise OSError
    assert get_accelerator() is users
    assert os.environ.get("DS_ACCELERATOR") == variable
