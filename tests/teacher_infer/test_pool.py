"""The pool of actors, with work that needs no engine: what ends a job, and with which line."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.config import ResourcesConfig
from cluster.errors import ClusterError, DataError, ModelError
from teacher_infer.config import LabelConfig
from teacher_infer.job import Engines, Job
from teacher_infer.pool import TRIES, Pool, Work

pytestmark = pytest.mark.engine


class Doubles:
    def __init__(self, job: Job, engines: Engines) -> None:
        self.job = job

    def do(self, shard: int) -> dict[str, Any]:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        return {"double": 2 * shard, "process": os.getpid(), "gpus": gpus}


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
    def __init__(self, job: Job, engines: Engines) -> None:
        raise DataError("items.parquet cannot be read")


def results(work: type[Work], folder: Path, shards: int = 1, **settings: float) -> list[dict[str, Any]]:
    config = LabelConfig(dataset=folder, output=folder, resources=ResourcesConfig(cpus=0.5), **settings)
    with Pool(Job(config, folder)) as pool:
        return list(pool.work_through(work, range(shards)))


def test_every_shard_is_done_by_actors_that_see_no_gpu_where_none_is_asked_for(ray_local, tmp_path):
    found = results(Doubles, tmp_path, 5)
    assert sorted(result["double"] for result in found) == [0, 2, 4, 6, 8]
    assert {result["gpus"] for result in found} == {""}


def test_work_whose_process_dies_each_time_ends_the_job_with_a_line(ray_local, tmp_path):
    with pytest.raises(ModelError, match=r"process died \(out of memory\?\).*the same command resumes"):
        results(Dies, tmp_path)


class FailsOnce(Doubles):
    """As a GPU that has to be started again: every call of a process that failed once fails."""

    broken = False

    def do(self, shard: int) -> dict[str, Any]:
        mark = self.job.model / f"failed-{shard}"
        if FailsOnce.broken or not mark.exists():
            mark.touch()
            FailsOnce.broken = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().do(shard)


def test_a_process_that_is_beyond_use_is_replaced(ray_local, tmp_path):
    done = results(FailsOnce, tmp_path, 2)
    assert sorted(result["double"] for result in done) == [0, 2]


def test_several_passes_are_done_by_the_same_process(ray_local, tmp_path):
    config = LabelConfig(dataset=tmp_path, output=tmp_path, resources=ResourcesConfig(cpus=0.5))
    with Pool(Job(config, tmp_path)) as pool:
        done = [result for _ in range(2) for result in pool.work_through(Doubles, range(2))]
    assert len({result["process"] for result in done}) == 1


class Counts(Doubles):
    def do(self, shard: int) -> dict[str, Any]:
        (self.job.model / f"{shard}-{os.getpid()}").touch()
        raise OSError(116, "Stale file handle", "/mnt/labels")


def test_work_that_fails_everywhere_has_its_tries_and_no_more(ray_local, tmp_path):
    with pytest.raises(ModelError, match=r"^/mnt/labels: Stale file handle; the same command resumes$"):
        results(Counts, tmp_path)
    assert len(list(tmp_path.glob("0-*"))) == TRIES


def test_work_that_comes_to_no_end_ends_the_job_within_the_stated_time(ray_local, tmp_path):
    with pytest.raises(ClusterError, match=r"nothing was finished for 2 s"):
        results(Hangs, tmp_path, progress_timeout=2)


def test_a_file_that_an_actor_cannot_read_is_named(ray_local, tmp_path):
    with pytest.raises(ModelError, match=rf"^{tmp_path / 'nothing'}: No such file or directory"):
        results(Reads, tmp_path)


def test_what_an_actor_lacks_from_the_start_is_one_line(ray_local, tmp_path):
    with pytest.raises(DataError, match=r"^items.parquet cannot be read$"):
        results(FindsNoCatalogue, tmp_path)
