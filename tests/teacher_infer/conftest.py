"""What all tests of the room share: engines, in a process of their own as in the product, and labels."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from teacher_infer.config import LabelConfig, VllmConfig
from teacher_infer.label import label
from tests.teacher_fixtures import TITLES, TinyTeacher

Ask = Callable[..., Any]
"""Calls a function with an engine and further arguments, in the engine's process."""


@pytest.fixture(scope="package")
def engines(tiny_teacher: TinyTeacher) -> Iterator[Callable[..., Any]]:
    """Calls a function with an engine, of the tiny teacher if no model is named, and further arguments.

    All engines live in one process, each from its first use to the end of the tests.
    """

    @ray.remote(num_cpus=0)
    class Holder:
        def __init__(self) -> None:
            self.engines: dict[tuple[str, Path, Path | None], Any] = {}

        def call(self, key: Any, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
            from teacher_infer.engine import VllmEngine

            if key not in self.engines:
                task, model, lora = key
                self.engines[key] = VllmEngine(model, task, VllmConfig(max_num_seqs=8, lora=lora))
            return function(self.engines[key], *given, **options)

    holder = Holder.remote()
    yield lambda task, function, *given, model=tiny_teacher.teacher, lora=None, **options: ray.get(
        holder.call.remote((task, model, lora), function, *given, **options)
    )
    ray.kill(holder)


@pytest.fixture(scope="package")
def generator(engines: Callable[..., Any]) -> Ask:
    """Calls a function with the engine that generates."""
    return partial(engines, "generate")


def job(tiny_teacher: TinyTeacher, output: Path, **options: Any) -> LabelConfig:
    """A job on the tiny teacher."""
    settings = {"ranking": "ground", "top_k": 10, "rows_per_shard": 16, "teacher": str(tiny_teacher.teacher)}
    return LabelConfig(dataset=tiny_teacher.dataset, output=output, **(settings | options))


SMALL = {"splits": ("test",), "rows_per_shard": 2}
"""A job of 15 shards: many places to be killed at, and soon done."""


@pytest.fixture(scope="package")
def grounded(tiny_teacher: TinyTeacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of an undisturbed job."""
    return label(job(tiny_teacher, tmp_path_factory.mktemp("labels") / "ground"))


@pytest.fixture(scope="package")
def beamed(tiny_teacher: TinyTeacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of an undisturbed small job, with as many beams as there are titles."""
    output = tmp_path_factory.mktemp("labels") / "beam"
    return label(job(tiny_teacher, output, ranking="beam", beams=len(TITLES), **SMALL))
