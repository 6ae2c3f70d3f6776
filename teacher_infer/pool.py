"""A pool of Ray Data actors, each with engines of its own, at work on shards of a job."""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import ray
from ray.data import ActorPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.annotations import RayDeprecationWarning

from cluster.console import quiet_libraries
from cluster.devices import see_gpus
from cluster.errors import ClusterError, ConfigError, ModelError, UserError
from cluster.resources import check_resources
from teacher_infer.job import Job

SHARD, RESULT, FAILURE = "shard", "result", "failure"
RETRIES = 8  # machines may be taken away again and again


class Work(Protocol):
    """What an actor does with one shard; made in the actor from the job."""

    def __init__(self, job: Job) -> None: ...

    def do(self, shard: Any) -> dict[str, Any]:  # noqa: ANN401  # what JSON holds
        """Do it, leave the result where it belongs, and say in short what was done."""
        ...


class Actor:
    """Does shards of JSON one at a time; mistakes of the user come back as values, Ray would wrap them in pages."""

    def __init__(self, work: type[Work], job: Job, driver: str) -> None:
        """``driver`` is the machine that the job was started on."""
        see_gpus(job.config.resources.gpus)
        self._make = lambda: work(job)
        self._where = "" if os.uname().nodename == driver else f"on {os.uname().nodename}: "

    @cached_property
    def _work(self) -> Work:
        return self._make()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One shard in, one result out."""
        try:
            results = [json.dumps(self._work.do(json.loads(shard))) for shard in batch[SHARD]]
        except UserError as error:
            return {RESULT: [""], FAILURE: [f"{self._where}{error}"]}
        except OSError as error:
            return {RESULT: [""], FAILURE: [f"{self._where}{error.filename or 'a file'}: {error.strerror or error}"]}
        return {RESULT: results, FAILURE: [""] * len(results)}


def work_through(work: type[Work], job: Job, shards: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Do every shard, as many at a time as the pool has actors; results come as they are ready.

    A shard whose actor or process dies is done again by another, up to ``RETRIES`` times.

    Raises:
        ConfigError: the cluster is too small for the engines, or has no room for them within ``placement_timeout``.
        ClusterError: for ``progress_timeout`` seconds no shard was finished.
        ModelError: what an actor raised as the user's mistake or a file system's, or a shard whose process died each
            time.
    """
    config = job.config
    resources, each = config.resources, config.resources.per_worker()
    asked = {name: amount * resources.workers for name, amount in each.items()}
    if not resources.autoscale:
        check_resources(f"{resources.workers} vLLM workers", asked, "lower --resources.workers")
    context = ray.data.DataContext.get_current()
    quiet_libraries()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = config.placement_timeout
    context.execution_no_progress_timeout_s = config.progress_timeout
    done = ray.data.from_items([{SHARD: json.dumps(shard)} for shard in shards], override_num_blocks=len(shards))
    most = max(resources.workers, config.max_workers or 0)
    with warnings.catch_warnings():
        # The way to limit retries is deprecated, and Ray 2.60 has no other.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        done = done.map_batches(
            Actor,
            fn_constructor_kwargs={"work": work, "job": job, "driver": os.uname().nodename},
            batch_size=1,
            compute=ActorPoolStrategy(min_size=resources.workers, max_size=most),
            num_cpus=each["CPU"],
            num_gpus=resources.gpus,
            accelerator_type=resources.accelerator_type,
            ray_remote_args_fn=lambda: {"max_task_retries": RETRIES},
        )
    try:
        for row in done.iter_rows():
            if row[FAILURE]:
                raise ModelError(row[FAILURE])
            yield json.loads(row[RESULT])
    except ExecutionTimeoutError as error:
        raise ClusterError(
            f"nothing was finished for {config.progress_timeout:g} s: machines are lost or a worker hangs; see that "
            "the cluster has what --resources.workers ask for, or raise --progress-timeout; the same command resumes"
        ) from error
    except RayActorError as error:
        raise ModelError(
            f"a vLLM worker's process died {RETRIES + 1} times at the same work (out of memory?): give it more, lower "
            "--rows-per-shard or --vllm.max-num-seqs; the same command resumes"
        ) from error
    except GetTimeoutError as error:
        free = ray.available_resources()
        wanted = ", ".join(f"{amount:g} {name}" for name, amount in asked.items() if amount)
        have = ", ".join(f"{free.get(name, 0):g} {name}" for name, amount in asked.items() if amount)
        raise ConfigError(
            f"{resources.workers} vLLM workers found no room within {config.placement_timeout:g} s: they ask for "
            f"{wanted}, free are {have}: wait for other jobs, lower --resources.workers or raise --placement-timeout"
        ) from error
