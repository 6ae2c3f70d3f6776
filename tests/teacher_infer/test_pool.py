"""The pool of actors, with work that needs no engine: what ends a job, and with which line."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.config import ResourcesConfig
from cluster.errors import ClusterError, DataError, ModelError
from teacher_infer import pool
from teacher_infer.config import LabelConfig
from teacher_infer.job import Job
from teacher_infer.pool import Work, work_through

pytestmark = pytest.mark.engine


class Doubles:
    def __init__(self, job: Job) -> None:
        self.job = job

    def do(self, shard: int) -> dict[str, Any]:
        return {"double": 2 * shard, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}


class Dies(Doubles):
    def do(self, shard: int) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


class Hangs(Doubles):
    def do(self, shard: int) -> dict[str, Any]:
        time.sleep(60)
        return {}


class Reads(Doubles):
    def do(self, shard: int) -> dict[str, Any]:
        return {"text": (self.job.model / "nothing").read_text()}


class FindsNoCatalogue(Doubles):
    def __init__(self, job: Job) -> None:
        raise DataError("items.parquet cannot be read")


def results(work: type[Work], folder: Path, shards: int = 1, **settings: float) -> list[dict[str, Any]]:
    config = LabelConfig(dataset=folder, output=folder, resources=ResourcesConfig(cpus=0.5), **settings)
    return list(work_through(work, Job(config, folder), range(shards)))


def test_every_shard_is_done_by_actors_that_see_no_gpu_where_none_is_asked_for(ray_local, tmp_path):
    found = results(Doubles, tmp_path, 5)
    assert sorted(result["double"] for result in found) == [0, 2, 4, 6, 8]
    assert {result["gpus"] for result in found} == {""}


def test_work_whose_process_dies_each_time_ends_the_job_with_a_line(ray_local, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "RETRIES", 1)
    with pytest.raises(ModelError, match="process died 2 times at the same work"):
        results(Dies, tmp_path)


def test_work_that_comes_to_no_end_ends_the_job_within_the_stated_time(ray_local, tmp_path):
    with pytest.raises(ClusterError, match=r"nothing was finished for 2 s"):
        results(Hangs, tmp_path, progress_timeout=2)


def test_a_file_that_an_actor_cannot_read_is_named(ray_local, tmp_path):
    with pytest.raises(ModelError, match=rf"^{tmp_path / 'nothing'}: No such file or directory"):
        results(Reads, tmp_path)


def test_what_an_actor_lacks_from_the_start_is_one_line(ray_local, tmp_path):
    with pytest.raises(ModelError, match=r"^items.parquet cannot be read$"):
        results(FindsNoCatalogue, tmp_path)
