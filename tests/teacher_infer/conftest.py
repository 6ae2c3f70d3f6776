"""One engine that generates, in a process of its own as in the product, for all tests of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from teacher_infer.config import VllmConfig
from tests.teacher_fixtures import TinyTeacher

Ask = Callable[..., Any]
"""Calls a function with the engine and further arguments, in the engine's process."""


@pytest.fixture(scope="package")
def generator(tiny_teacher: TinyTeacher) -> Iterator[Ask]:
    @ray.remote(num_cpus=0)
    class Holder:
        def __init__(self) -> None:
            from teacher_infer.engine import VllmEngine

            # Two blocks more than one row needs: rows take turns.
            self.engine = VllmEngine(tiny_teacher.teacher, "generate", VllmConfig(max_num_seqs=8))

        def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            return function(self.engine, *arguments, **options)

    holder = Holder.remote()
    yield lambda function, *arguments, **options: ray.get(holder.call.remote(function, *arguments, **options))
    ray.kill(holder)
