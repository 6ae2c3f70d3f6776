"""MLflow: the connection, runs and their metrics; ``cluster.registry`` builds the registry of models upon it."""

import contextlib
import logging
import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

# MLflow reads these when it is imported. A dead server is to fail in seconds, not after minutes of retries.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from cluster.config import Config, TrackingConfig
from cluster.errors import ConfigError

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

ARTIFACTS_FOLDER = "mlartifacts"
RECORDED_PACKAGES = ("dllm2rec", "torch", "ray", "deepspeed", "mlflow")
_SQLITE = "sqlite:///"
_LARGEST_BATCH = 100
_LONGEST_PARAM = 6000


class Run:
    """An MLflow run that is being written."""

    def __init__(self, tracker: "Tracker", run_id: str) -> None:
        self.id = run_id
        self._tracker = tracker

    def log_params(self, params: Config | Mapping[str, Any]) -> None:
        """Record settings; nested ones are named ``outer.inner``.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        entries = [Param(key, value[:_LONGEST_PARAM]) for key, value in flatten(params).items()]
        for at in range(0, len(entries), _LARGEST_BATCH):
            with self._tracker.answering() as client:
                client.log_batch(self.id, params=entries[at : at + _LARGEST_BATCH])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics of one step (epoch); ``hr@20`` becomes ``hr_at_20``, for MLflow allows no ``@``.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        now = int(time.time() * 1000)
        entries = [Metric(metric_name(key), float(value), now, step) for key, value in metrics.items()]
        with self._tracker.answering() as client:
            client.log_batch(self.id, metrics=entries)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        with self._tracker.answering() as client:
            client.log_batch(self.id, tags=[RunTag(metric_name(key), value) for key, value in tags.items()])

    def log_artifacts(self, paths: Iterable[Path]) -> None:
        """Upload files and directories.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        for path in paths:
            with self._tracker.answering() as client:
                if path.is_dir():
                    client.log_artifacts(self.id, str(path), path.name)
                else:
                    client.log_artifact(self.id, str(path))

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Close the run.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        with self._tracker.answering() as client:
            client.set_terminated(self.id, status)


class Tracker:
    """The connection to one MLflow store and one experiment in it.

    Make it in the driver before any worker writes: the first connection creates the tables of a SQL store.
    """

    def __init__(self, config: TrackingConfig) -> None:
        """Connect and open the experiment, creating both where needed.

        Raises:
            ConfigError: no usable MLflow store stands at ``config.uri``.
        """
        self.uri = absolute_uri(config.uri)
        with _one_line_faults(self.uri):
            if self.uri.startswith(_SQLITE):
                _check_sqlite(self.uri)
        with self.answering() as client:
            self._experiment = _open_experiment(client, self.uri, config.experiment)

    @contextmanager
    def answering(self) -> Iterator[mlflow.MlflowClient]:
        """Lend the client; what it cannot do becomes one line.

        Raises:
            ConfigError: the store or server does not answer or refuses.
        """
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        with _one_line_faults(self.uri):
            yield mlflow.MlflowClient(self.uri)

    def open_run(self, name: str, *, parent: str | None = None) -> Run:
        """Start a run, nested under the run ``parent`` if given; the caller finishes it.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        tags = _origin() | ({"mlflow.parentRunId": parent} if parent else {})
        with self.answering() as client:
            return Run(self, client.create_run(self._experiment, run_name=name, tags=tags).info.run_id)

    @contextmanager
    def run(self, name: str, *, parent: str | None = None) -> Iterator[Run]:
        """Start a run for the length of the block; it ends FINISHED, FAILED on an error, KILLED on an interrupt.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        run = self.open_run(name, parent=parent)
        status: RunStatus = "KILLED"
        try:
            yield run
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            run.finish(status)


def absolute_uri(uri: str) -> str:
    """A relative SQLite path made absolute, so that processes started elsewhere find the same file."""
    return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}" if uri.startswith(_SQLITE) else uri


def metric_name(name: str) -> str:
    """A metric's name in MLflow, which allows no ``@``: ``ndcg@20`` is ``ndcg_at_20``."""
    return name.replace("@", "_at_")


def flatten(settings: Config | Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of text, ``outer.inner`` to value."""
    mapping = settings.model_dump(mode="json") if isinstance(settings, Config) else settings
    flat: dict[str, str] = {}
    for key, value in mapping.items():
        if isinstance(value, Config | Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _open_experiment(client: mlflow.MlflowClient, uri: str, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        beside = Path(uri.removeprefix(_SQLITE)).parent / ARTIFACTS_FOLDER
        return client.create_experiment(name, beside.as_uri() if uri.startswith(_SQLITE) else None)
    if found.lifecycle_stage != "active":
        raise ConfigError(f"--tracking.experiment {name} was deleted: choose another name")
    return found.experiment_id


def _origin() -> dict[str, str]:
    """Tags that say which code makes a run."""
    tags = {"mlflow.source.name": "dllm2rec"}
    for package in RECORDED_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            tags[f"version.{package}"] = version(package)
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        here = Path(__file__).parent
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        tags["mlflow.source.git.commit"] = asked.stdout.strip()
    return tags


def _check_sqlite(uri: str) -> None:
    """MLflow itself would try for minutes to open a file that cannot be opened."""
    path = Path(uri.removeprefix(_SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA schema_version")


@contextmanager
def _one_line_faults(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, ImportError, OSError) as error:
        raise ConfigError(f"MLflow at --tracking.uri {uri} cannot be used: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first sentence of an error, on one line."""
    if "Max retries exceeded" in str(error):
        return "no server answers there"
    return re.split(r"\.\s|\s\[SQL|\s\(Background", " ".join(str(error).split()))[0][:300]


logging.getLogger("alembic").setLevel(logging.WARNING)
