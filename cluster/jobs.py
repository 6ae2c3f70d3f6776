"""Verbs as jobs on a Ray cluster, through the Ray Jobs API.

``dllm2rec submit --address http://HEAD:8265 train --output /shared/runs/student``
"""

import asyncio
import logging
import os
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from zipfile import ZIP_DEFLATED, ZipFile

from aiohttp import ClientError
from ray.job_submission import JobStatus, JobSubmissionClient

from cluster.config import Config, SubmitConfig, split_config_option
from cluster.errors import ClusterError, ConfigError

EXCLUDED = (".*", "__pycache__", "*.egg-info", "build", "runs", "data", "mlruns", "mlartifacts", "*.db")
UPLOAD_LIMIT = 100 * 2**20  # bytes; what Ray's dashboard accepts in one request
PROBE_SECONDS = 5
logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)  # it tells of every closed log stream
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
        ConfigError: the output would be lost, or the working directory cannot be uploaded.
        ClusterError: no cluster answers at the address, or it refuses the token.
    """
    _check_output_outlives_job(verb_config)
    root = config.working_dir.resolve()
    files = uploaded_files(root)
    arguments = [*_arguments_in_job(argv, root, files), *_lasting_journal(verb_config)]
    entrypoint = shlex.join(["python", "-u", "-m", "dllm2rec", verb, *arguments])
    client = connect(config.address)
    job = _send(client, entrypoint, root, files)
    options = f"--address {config.address} {job}"
    hint = f"follow it with `ray job logs --follow {options}`, stop it with `ray job stop {options}`"
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Not the default: asyncio would replace it and cancel the log instead, which may end in any other error.
        signal.signal(signal.SIGINT, _interrupt)
    try:
        print(f"job {job} submitted: {hint}", file=sys.stderr)
        return _follow(client, job) if config.wait else 0
    except KeyboardInterrupt:
        print(f"\njob {job} goes on: {hint}", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        raise ClusterError(f"{config.address} no longer answers; job {job} may go on: {hint}") from error


def connect(address: str) -> JobSubmissionClient:
    """Client of the Jobs API at ``address``; sends the token of RAY_AUTH_TOKEN, or of Ray's token file, if any.

    Raises:
        ClusterError: nothing answers, something else than Ray answers, or the token is missing or wrong.
    """
    headers = _token_header()
    try:
        # Ray's client itself waits for minutes where packets are dropped.
        with urlopen(Request(f"{address}/api/version", headers=headers), timeout=PROBE_SECONDS) as answer:
            answer.read()
    except HTTPError as error:
        raise ClusterError(f"{address}: {_refusal(error.code)}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ClusterError(
            f"no Ray cluster answers at --address {address} ({reason}): give the URL of its dashboard, "
            "e.g. http://HEAD:8265"
        ) from error
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray's client prefers the variable to its argument.
    return JobSubmissionClient(address, headers=headers)


def uploaded_files(root: Path) -> list[Path]:
    """Files of the working directory that go to the cluster, in order.

    Raises:
        ConfigError: no such directory, or its files exceed UPLOAD_LIMIT.
    """
    if not root.is_dir():
        raise ConfigError(f"--working-dir {root} is no directory")
    files = sorted(_walk(root))
    sizes: Counter[str] = Counter()
    for file in files:
        sizes[file.relative_to(root).parts[0]] += file.stat().st_size
    if sizes.total() > UPLOAD_LIMIT:
        biggest = ", ".join(f"{name} {_mib(size)}" for name, size in sizes.most_common(3))
        raise ConfigError(
            f"--working-dir {root} holds {_mib(sizes.total())}, the upload limit is {_mib(UPLOAD_LIMIT)}: "
            f"move away what the job does not need (biggest: {biggest}); never uploaded: {' '.join(EXCLUDED)}"
        )
    return files


def pack(root: Path, files: Sequence[Path], package: Path) -> Path:
    """Write ``files`` into the zip file ``package`` under their names relative to ``root``."""
    with ZipFile(package, "w", ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.relative_to(root))
    return package


def _check_output_outlives_job(verb_config: Config) -> None:
    output = getattr(verb_config, "output", None)
    if output is not None and not output.is_absolute():
        raise ConfigError(
            f"--output {output} would vanish with the job's temporary directory: "
            "give an absolute path on storage that all nodes share"
        )


def _lasting_journal(verb_config: Config) -> list[str]:
    """Options that keep what a tracking server misses beside the output, where it outlives the job."""
    output, tracking = (getattr(verb_config, name, None) for name in ("output", "tracking"))
    if output is None or tracking is None or tracking.journal.is_absolute():
        return []
    return ["--tracking.journal", str(output.parent / tracking.journal.name)]


def _arguments_in_job(argv: Sequence[str], root: Path, files: Sequence[Path]) -> list[str]:
    """The verb's command line with its config file as the job sees it."""
    file, rest = split_config_option(argv)
    if file is None:
        return rest
    if file.resolve() not in files:
        raise ConfigError(f"--config {file} is not among the uploaded files: put it under --working-dir {root}")
    return ["--config", str(file.resolve().relative_to(root)), *rest]


def _walk(root: Path) -> Iterator[Path]:
    def kept(names: list[str]) -> list[str]:
        return [name for name in names if not any(fnmatch(name, pattern) for pattern in EXCLUDED)]

    for folder, folders, names in os.walk(root):
        folders[:] = kept(folders)
        yield from (file for name in kept(names) if (file := Path(folder) / name).is_file())


def _token_header() -> dict[str, str]:
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and file.is_file():
        token = file.read_text(encoding="utf-8")
    return {"Authorization": f"Bearer {token.strip()}"} if token.strip() else {}


def _refusal(status: int) -> str:
    if status == 401:
        return "the cluster asks for a token: set RAY_AUTH_TOKEN to the one its head was started with"
    if status == 403:
        return "the cluster refuses the token: set RAY_AUTH_TOKEN to the one its head was started with"
    return f"what answers is no Ray dashboard (status {status}): give --address the dashboard's URL"


def _send(client: JobSubmissionClient, entrypoint: str, root: Path, files: Sequence[Path]) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        package = pack(root, files, Path(scratch) / "project.zip")
        try:
            return client.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": str(package)})
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ClusterError(f"{client.get_address()} does not take the job: {reason}") from error


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _follow(client: JobSubmissionClient, job: str) -> int:
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


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
