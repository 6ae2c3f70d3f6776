"""MLflow runs. ``model_registry.versions``, which builds on it, is the only other module that calls MLflow.

A :class:`Tracker` sends records, in parts while a job runs or complete when it has ended, as often as one likes: it
finds a run by its key and adds what the run lacks.
"""

import logging
import os
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Self, TypeVar

# MLflow reads these when it is imported. A dead server is to fail in seconds, not after minutes of retries.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cluster.commit import running_commit
from cluster.config import TrackingConfig, without_credentials
from cluster.errors import ConfigError
from cluster.files import local_copy
from cluster.run_record import RunRecord, RunStatus, flatten, metric_name

logging.getLogger("alembic").setLevel(logging.WARNING)

ARTIFACTS_FOLDER = "mlartifacts"
KEY_TAG, RESULT_TAG = "dllm2rec.key", "dllm2rec.result"
RETRY_SECONDS = 30.0
_PACKAGES = ("dllm2rec", "torch", "ray", "deepspeed", "mlflow")
_SQLITE = "sqlite:///"
_MOST_PER_REQUEST = 100
V = TypeVar("V")


class ServerAway(ConfigError):
    """The tracking server does not answer."""


class Tracker:
    """The connection to one experiment of one MLflow store.

    As a context it opens the experiment, and waits at the end for what was sent soon. Enter it in the driver before any
    worker writes: the first connection creates the tables of a SQL store.
    """

    def __init__(self, config: TrackingConfig, output: Path | None = None) -> None:
        """Connect to nothing yet; ``output`` is the directory that holds what is sent, named in warnings."""
        self.uri = absolute_uri(config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db")
        self.shown_uri = without_credentials(self.uri)
        self._name, self._output = config.experiment, output
        self._experiment = ""
        self._lock = threading.RLock()
        self._runs: dict[str, _SentRun] = {}
        self._waiting: deque[RunRecord] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._silent_until, self._warned = 0.0, False

    def __enter__(self) -> Self:
        """Open the experiment; warn of a server that is away.

        Raises:
            ConfigError: there is no usable store, or the server refuses.
        """
        try:
            with self.client():
                return self
        except ServerAway as error:
            self._warn(error)
            return self

    def __exit__(self, *_: object) -> None:
        """Send what waits; try a server that was away once more."""
        self._silent_until = 0.0
        self._thread.submit(self._send_waiting).result()

    @contextmanager
    def client(self) -> Iterator[mlflow.MlflowClient]:
        """Lend MLflow's client; what MLflow raises becomes one line with its own words.

        Raises:
            ServerAway: the server does not answer.
            ConfigError: the store or server refuses.
        """
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        try:
            if not self._experiment:
                _check_sqlite(self.uri)
            client = mlflow.MlflowClient(self.uri)
            self._experiment = self._experiment or _open_experiment(client, self.uri, self._name)
            yield client
        except (MlflowException, SQLAlchemyError, sqlite3.Error, ImportError, OSError) as error:
            kind, reason = _fault(error)
            raise kind(without_credentials(f"MLflow at --tracking.uri {self.uri} cannot be used: {reason}")) from None

    def send(self, record: RunRecord) -> str:
        """Make the record's run, or add to it what it lacks; returns MLflow's id of the run.

        Raises:
            ServerAway: the server does not answer.
            ConfigError: the store or server refuses.
        """
        with self._lock, self.client() as client:
            run = self._run(client, record)
            if not run.result:
                run.add(client, record)
            return run.id

    def send_soon(self, record: RunRecord) -> None:
        """Send in a thread, in order; a server that is away or refuses is warned of once and stops nothing."""
        self._waiting.append(record)
        self._thread.submit(self._send_waiting)

    @contextmanager
    def running(self, record: RunRecord) -> Iterator[None]:
        """Send a record soon, and if the block raises its end too: FAILED, or KILLED on an interrupt."""
        self.send_soon(record)
        try:
            yield
        except BaseException as error:
            status: RunStatus = "FAILED" if isinstance(error, Exception) else "KILLED"
            self.send_soon(replace(record, status=status))
            raise

    def _run(self, client: mlflow.MlflowClient, record: RunRecord) -> "_SentRun":
        """The run of this key, if it has no other result than the record, else a new one."""
        known = self._runs.get(record.key)
        if known and (known.result in ("", record.result) or not record.result):
            return known
        found = client.search_runs([self._experiment], f"tags.`{KEY_TAG}` = '{record.key}'")
        fitting = [run for run in map(_SentRun, found) if run.result in ("", record.result)]
        run = max(fitting, key=lambda run: run.result, default=None)
        self._runs[record.key] = run or self._made(client, record)
        return self._runs[record.key]

    def _made(self, client: mlflow.MlflowClient, record: RunRecord) -> "_SentRun":
        tags = _origin() | {KEY_TAG: record.key}
        if record.parent:
            tags["mlflow.parentRunId"] = self._run(client, record.parent).id
        return _SentRun(client.create_run(self._experiment, _milliseconds(record.started), tags, record.name))

    def _send_waiting(self) -> None:
        while self._waiting and time.monotonic() >= self._silent_until:
            try:
                self.send(self._waiting[0])
            except ServerAway as error:
                self._warn(error)
                self._silent_until = time.monotonic() + RETRY_SECONDS
                return
            except ConfigError as error:
                self._warn(error)
            self._waiting.popleft()

    def _warn(self, error: ConfigError) -> None:
        later = f"; `dllm2rec track {self._output}` sends later what is missing" if self._output else ""
        if not self._warned:
            print(f"dllm2rec: {error}: the work continues{later}", file=sys.stderr)
        self._warned = True


class _SentRun:
    """A run as far as it is known to be at the server."""

    def __init__(self, run: Run) -> None:
        self.id: str = run.info.run_id
        self.result: str = run.data.tags.get(RESULT_TAG, "")
        self._status: str = run.info.status
        self._params, self._tags, self._metrics = run.data.params, run.data.tags, run.data.metrics
        self._steps: dict[str, set[int]] = {}

    def add(self, client: mlflow.MlflowClient, record: RunRecord) -> None:
        """Send what the run lacks; the result comes last."""
        points = [(metric_name(name), value, step) for step, at in record.curve for name, value in at.items()]
        points = [(name, value, step) for name, value, step in points if step not in self._known(client, name)]
        points += [(name, value, 0) for name, value in _changed(record.metrics, self._metrics).items()]
        params = {name: value for name, value in flatten(record.params).items() if name not in self._params}
        tags = _changed(record.tags, self._tags)
        now = _milliseconds(record.ended)
        self._log(client, "metrics", [Metric(name, value, now, step) for name, value, step in points])
        self._log(client, "params", [Param(*param) for param in params.items()])
        self._log(client, "tags", [RunTag(*tag) for tag in tags.items()])
        for path in record.artifacts:
            client.log_artifact(self.id, str(local_copy(path)))
        if record.status != self._status:
            if record.status == "RUNNING":
                client.update_run(self.id, record.status)
            else:
                client.set_terminated(self.id, record.status, now)
        if record.result:
            client.set_tag(self.id, RESULT_TAG, record.result)
        for name, value, step in points:
            self._metrics[name] = value
            self._known(client, name).add(step)
        self._params |= params
        self._tags |= tags
        self._status, self.result = record.status, record.result

    def _known(self, client: mlflow.MlflowClient, name: str) -> set[int]:
        """Steps of a metric that are at the server."""
        if name not in self._steps:
            history = client.get_metric_history(self.id, name) if name in self._metrics else []
            self._steps[name] = {point.step for point in history}
        return self._steps[name]

    def _log(self, client: mlflow.MlflowClient, kind: str, entities: Sequence[object]) -> None:
        for at in range(0, len(entities), _MOST_PER_REQUEST):
            client.log_batch(self.id, **{kind: entities[at : at + _MOST_PER_REQUEST]})


def absolute_uri(uri: str) -> str:
    """A relative SQLite path made absolute, so that processes started elsewhere find the same file."""
    return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}" if uri.startswith(_SQLITE) else uri


def _origin() -> dict[str, str]:
    """Tags that say which code makes a run."""
    commit = running_commit()
    tags = {f"version.{package}": version(package) for package in _PACKAGES} | {"mlflow.source.name": "dllm2rec"}
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _open_experiment(client: mlflow.MlflowClient, uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        beside = Path(uri.removeprefix(_SQLITE)).parent / ARTIFACTS_FOLDER
        return client.create_experiment(name, beside.as_uri() if uri.startswith(_SQLITE) else None)
    if found.lifecycle_stage != "active":
        raise ConfigError(f"--tracking.experiment {name} was deleted: choose another name")
    return found.experiment_id


def _check_sqlite(uri: str) -> None:
    """MLflow itself would try for minutes to open a file that cannot be opened."""
    if uri.startswith(_SQLITE):
        file = Path(uri.removeprefix(_SQLITE))
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA schema_version")


def _fault(error: BaseException) -> tuple[type[ConfigError], str]:
    """Whether a store does not answer or refuses, and its words on one line."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    # A malformed address is a ValueError too.
    if any(isinstance(one, RequestException | OperationalError) and not isinstance(one, ValueError) for one in chain):
        return ServerAway, f"no server answers there ({' '.join(str(chain[-1]).split())})"
    words = " ".join(str(getattr(error, "orig", error)).split())
    remedy = ": start it with `mlflow server --allowed-hosts HOSTS`" if "Invalid Host header" in words else ""
    return ConfigError, words + remedy


def _changed(values: Mapping[str, V], known: Mapping[str, V]) -> dict[str, V]:
    """What differs from what is known, by MLflow's names."""
    return {at: value for name, value in values.items() if known.get(at := metric_name(name)) != value}


def _milliseconds(seconds: float) -> int:
    return int((seconds or time.time()) * 1000)
