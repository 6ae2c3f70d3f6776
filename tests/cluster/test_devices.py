"""A worker sees the GPUs that its job asks for, and no others."""

import os

import pytest

from cluster.config import ResourcesConfig
from cluster.workers import _Worker


@pytest.mark.parametrize(("gpus", "seen"), [(0, ""), (0.5, "3"), (2, "3")])
def test_a_worker_that_asks_for_no_gpu_sees_none(gpus: float, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # as Ray or the machine has it
    found = []
    _Worker(lambda payload: found.append(os.environ["CUDA_VISIBLE_DEVICES"]), ResourcesConfig(gpus=gpus))({})
    assert found == [seen]
