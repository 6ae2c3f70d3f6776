"""What all tests of the room share: an engine that generates, in a process of its own as in the product, and labels."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from teacher_infer.config import LabelConfig, VllmConfig
from teacher_infer.label import label
from tests.teacher_fixtures import TinyTeacher

Ask = Callable[..., Any]
"""Calls a function with the engine and further arguments, in the engine's process."""


@pytest.fixture(scope="package")
def generator(tiny_teacher: TinyTeacher) -> Iterator[Ask]:
    @ray.remote(num_cpus=0)
    class Holder:
        def __init__(self) -> None:
            from teacher_infer.engine import VllmEngine

            self.engine = VllmEngine(tiny_teacher.teacher, "generate", VllmConfig(max_num_seqs=8))

        def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            return function(self.engine, *arguments, **options)

    holder = Holder.remote()
    yield lambda function, *arguments, **options: ray.get(holder.call.remote(function, *arguments, **options))
    ray.kill(holder)


def ground_config(tiny_teacher: TinyTeacher, output: Path, **options: Any) -> LabelConfig:
    """Grounding in shards so small that there are many to be killed at."""
    settings = {"ranking": "ground", "top_k": 10, "rows_per_shard": 2} | options
    return LabelConfig(dataset=tiny_teacher.dataset, teacher=str(tiny_teacher.teacher), output=output, **settings)


@pytest.fixture(scope="package")
def grounded(tiny_teacher: TinyTeacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of an undisturbed job."""
    return label(ground_config(tiny_teacher, tmp_path_factory.mktemp("labels") / "ground"))
