"""Verbs as jobs on a Ray cluster, through Ray's Jobs API.

``dllm2rec submit --address http://HEAD:8265 train --output /shared/runs/student``
"""

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import requests
from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from cluster.commit import COMMIT, commit_of
from cluster.config import Config, SubmitConfig, split_config_option, without_credentials
from cluster.errors import ClusterError, ConfigError
from cluster.resources import DRIVER_CPUS, DRIVER_GPUS

# Not ".*", which Ray takes to match the directory itself, and then uploads nothing.
EXCLUDED = (".?*", "__pycache__", "*.egg-info", "build", "runs", "data", "mlruns", "mlartifacts", "*.db")
PROBE_SECONDS = 5
USER_ERROR, FAILED, INTERRUPTED = 2, 1, 130


def submit(config: SubmitConfig, verb: str, argv: Sequence[str], verb_config: Config) -> int:
    """Run ``dllm2rec verb argv`` as a job and return the exit code of the command line.

    Args:
        config: the cluster and what to upload.
        verb: the verb to run there.
        argv: its command line, already checked.
        verb_config: what ``argv`` amounts to.

    Returns:
        0 if the job succeeded (or was only started), 2 if the verb ended with a user error, 130 after Ctrl-C, else 1.

    Raises:
        ConfigError: the output would be lost, the command line holds credentials, or the project cannot be uploaded.
        ClusterError: no cluster answers at the address, or it refuses the token.
    """
    root = config.working_dir.resolve()
    _check(root, argv, verb_config)
    entrypoint = shlex.join(["python", "-u", "-m", "dllm2rec", verb, *_arguments_in_job(argv, root)])
    address = dashboard(config.address)
    client = connect(address, config.plain_http)
    job = _send(client, entrypoint, root, config)
    options = f"{job} --address {address}"
    hint = f"follow it with `dllm2rec jobs logs {options}`, stop it with `dllm2rec jobs stop {options}`"
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Not the default: asyncio would replace it and cancel the log instead, which may end in any other error.
        signal.signal(signal.SIGINT, _interrupt)
    try:
        print(f"job {job} submitted: {hint}", file=sys.stderr)
        return follow(client, job) if config.wait else 0
    except KeyboardInterrupt:
        print(f"\njob {job} continues: {hint}", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        raise ClusterError(f"{address} no longer answers; job {job} may continue: {hint}") from error


def dashboard(address: str) -> str:
    """The dashboard's URL as a browser shows it, without the page that it stands at."""
    return address.partition("#")[0].rstrip("/")


def _check_private(address: str) -> None:
    """Refuse to send the token where others may read it: over http to another machine."""
    url = urlsplit(address)
    if url.scheme == "http" and not _loopback(url.hostname or "") and os.environ.get("RAY_AUTH_MODE") == "token":
        raise ConfigError(
            f"--address {address} would get the token over plain http: forward the port (`ssh -L 8265:127.0.0.1:8265 "
            f"{url.hostname}`, `kubectl port-forward`) and submit to http://127.0.0.1:8265, take https, or add "
            "--plain-http True in a network that you trust"
        )


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def connect(address: str, plain_http: bool = False) -> JobSubmissionClient:
    """Client of the Jobs API at ``address``, which sends the token where RAY_AUTH_MODE was so when Ray was imported.

    Args:
        address: URL of the dashboard.
        plain_http: whether another machine may get the token over http.

    Raises:
        ConfigError: it may not.
        ClusterError: nothing answers, something else than Ray answers, or the token is missing or wrong.
    """
    if not plain_http:
        _check_private(address)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray's client prefers the variable to its argument.
    try:
        # Ray's client itself would wait for minutes.
        answer = requests.get(f"{address}/api/version", timeout=PROBE_SECONDS)
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            server = answer.headers.get("Server", "a server that gives no name")
            raise ClusterError(
                f"{address} is answered by {server} with {answer.status_code} {answer.reason}, not by Ray: a proxy "
                "stands before a cluster that is not up; start it, or give the URL of the dashboard itself"
            )
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        words = " ".join(str(error).split())
        raise ClusterError(f"{address} refuses ({words}): set RAY_AUTH_TOKEN to the one its head has") from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ClusterError(
            f"no Ray cluster answers at --address {address} ({' '.join(str(error).split())}): give the URL of its "
            "dashboard, e.g. http://HEAD:8265"
        ) from error


def _check(root: Path, argv: Sequence[str], verb_config: Config) -> None:
    if not root.is_dir():
        raise ConfigError(f"--working-dir {root} is no directory")
    output = getattr(verb_config, "output", None)
    if output is not None and not output.is_absolute():
        raise ConfigError(
            f"--output {output} would vanish with the job's temporary directory: "
            "give an absolute path on storage that all nodes share"
        )
    for option, path in _inputs(verb_config):
        if not path.is_absolute() and not _uploaded(root, path):
            raise ConfigError(
                f"--{option} {path} would not be there for the job, which gets {root} without "
                f"{' '.join(EXCLUDED)}: give an absolute path on storage that all nodes share"
            )
    if any(argument != without_credentials(argument) for argument in argv):
        raise ConfigError(
            "an address on the command line holds a password, which Ray would show in the job's log: set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_URI, on the cluster"
        )


def _inputs(config: Config, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """The paths that a verb reads, with their options."""
    for name in type(config).model_fields:
        value, option = getattr(config, name), f"{prefix}{name.replace('_', '-')}"
        if isinstance(value, Config):
            yield from _inputs(value, f"{option}.")
        elif isinstance(value, Path) and name != "output":
            yield option, value


def _uploaded(root: Path, path: Path) -> bool:
    inside = (root / path).resolve()
    parts = inside.relative_to(root).parts if inside.is_relative_to(root) else ("..",)
    return inside.exists() and not any(fnmatch(part, pattern) for part in (*parts, *path.parts) for pattern in EXCLUDED)


def _arguments_in_job(argv: Sequence[str], root: Path) -> list[str]:
    """The verb's command line with its config file as the job sees it."""
    file, rest = split_config_option(argv)
    if file is None:
        return rest
    try:
        inside = file.resolve().relative_to(root)
    except ValueError:
        inside = None
    if inside is None or not _uploaded(root, inside):
        raise ConfigError(f"--config {file} is not among the uploaded files: put it under --working-dir {root}")
    return ["--config", str(inside), *rest]


def _send(client: JobSubmissionClient, entrypoint: str, root: Path, config: SubmitConfig) -> str:
    environment = {DRIVER_CPUS: f"{config.cpus:g}", DRIVER_GPUS: f"{config.gpus:g}", COMMIT: commit_of(root)}
    try:
        job: str = client.submit_job(
            entrypoint=entrypoint,
            submission_id=config.submission_id,
            runtime_env={"working_dir": str(root), "excludes": [*EXCLUDED], "env_vars": environment},
            entrypoint_num_cpus=config.cpus,
            entrypoint_num_gpus=config.gpus,
            entrypoint_memory=config.memory,
            entrypoint_resources=config.own_resources,
        )
        return job
    except (OSError, RuntimeError) as error:
        words = " ".join(str(error).split())
        if "413" in words:
            raise ConfigError(
                f"--working-dir {root} is larger than the cluster takes ({words}): move away what the job does not "
                f"need, or list it in .gitignore or .rayignore; never uploaded: {' '.join(EXCLUDED)}"
            ) from error
        raise ClusterError(f"{client.get_address()} does not take the job: {words}") from error


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def follow(client: JobSubmissionClient, job: str) -> int:
    """Print the log of a job until it ends, and return the exit code of the command line (see :func:`submit`)."""
    try:
        asyncio.run(_print_log(client, job))
    except (RuntimeError, ClientError) as error:
        print(f"the log of job {job} broke off ({error}); waiting for the job to end", file=sys.stderr)
    while not (details := client.get_job_info(job)).status.is_terminal():
        time.sleep(1)
    if details.status == JobStatus.SUCCEEDED:
        return 0
    reason = (details.message or "").partition("\n")[0]
    print(f"job {job} {details.status.lower()}: {reason}", file=sys.stderr)
    return USER_ERROR if details.driver_exit_code == USER_ERROR else FAILED


async def _print_log(client: JobSubmissionClient, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)
