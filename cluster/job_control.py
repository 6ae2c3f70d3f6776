"""The verb ``jobs``: what became of submitted jobs, through Ray's Jobs API."""

import sys
import time
from datetime import UTC, datetime

from ray.job_submission import JobDetails, JobSubmissionClient

from cluster.config import JobsConfig
from cluster.errors import ClusterError
from cluster.jobs import connect, dashboard, follow
from cluster.text import aligned

STOP_SECONDS = 10


def jobs(config: JobsConfig) -> None:
    """List all jobs, or tell of one, follow its log (and end with its exit code), or stop it.

    Raises:
        ClusterError: no cluster answers at the address, it refuses the token, or it knows no such job.
    """
    client = connect(dashboard(config.address), config.plain_http)
    if config.action == "list":
        known = [job for job in client.list_jobs() if job.submission_id]
        lines = [_line(job) for job in sorted(known, key=lambda job: job.start_time or 0)]
        print(aligned([["job", "status", "started", "command"], *lines], left=(0, 1, 2, 3)))
        return
    details = _details(client, config)
    if config.action == "status":
        print(f"{config.job}: {details.status.lower()}, {details.message or 'no message'}")
    elif config.action == "logs":
        sys.exit(follow(client, config.job))
    else:
        _stop(client, config.job)


def _details(client: JobSubmissionClient, config: JobsConfig) -> JobDetails:
    try:
        return client.get_job_info(config.job)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        raise ClusterError(
            f"{config.address} tells nothing of a job {config.job} ({words}): `dllm2rec jobs list` shows those it knows"
        ) from error


def _stop(client: JobSubmissionClient, job: str) -> None:
    client.stop_job(job)
    until = time.monotonic() + STOP_SECONDS
    while not (status := client.get_job_status(job)).is_terminal() and time.monotonic() < until:
        time.sleep(0.5)
    if status.is_terminal():
        print(f"{job}: {status.lower()}")
    else:  # Ray tells the job's own process, which a job that waits for resources does not have yet
        print(f"{job}: {status.lower()}, asked to stop: it ends when the resources that it waits for are there")


def _line(job: JobDetails) -> list[str]:
    started = datetime.fromtimestamp((job.start_time or 0) / 1000, UTC)
    return [str(job.submission_id), job.status.lower(), f"{started:%Y-%m-%d %H:%M} UTC", job.entrypoint]
