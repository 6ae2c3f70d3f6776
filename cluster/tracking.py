"""MLflow: the connection and its runs; ``model_registry.versions`` builds the registry of models upon it.

A server that does not answer stops nothing: what it misses goes into a journal and is sent when it answers again.
"""

import contextlib
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.config import TrackingConfig
from cluster.errors import ConfigError
from cluster.journal import Call, Journal
from cluster.mlflow_client import ServerAway, mlflow, one_line_faults
from cluster.run import KEY_PREFIX, Run, Sender, creation

__all__ = ["Run", "Tracker", "absolute_uri"]

ARTIFACTS_FOLDER = "mlartifacts"
# A server that is away costs a training a few seconds every so often.
RETRY_SECONDS = 30.0
_SQLITE = "sqlite:///"


class Tracker:
    """The connection to one MLflow store and one experiment in it.

    Make it in the driver before any worker writes: the first connection creates the tables of a SQL store.
    """

    def __init__(self, config: TrackingConfig) -> None:
        """Connect, open the experiment, creating both where needed, and send what earlier commands could not.

        A server that does not answer is no error here: runs do without it, and the registry says so itself.

        Raises:
            ConfigError: no usable MLflow store stands at ``config.uri``.
        """
        self.uri = absolute_uri(config.uri)
        self._name = config.experiment
        self._experiment: str | None = None
        self._journal = Journal(config.journal, f"{self.uri} {config.experiment}")
        self._sender = Sender()
        self._silent_until = 0.0
        with one_line_faults(self.uri):
            if self.uri.startswith(_SQLITE):
                _check_sqlite(self.uri)
        try:
            self.catch_up()
        except ServerAway as error:
            self._note_absence(error)

    @contextmanager
    def answering(self) -> Iterator[mlflow.MlflowClient]:
        """Lend the client; what it cannot do becomes one line.

        Raises:
            ServerAway: the server does not answer.
            ConfigError: the store or server refuses.
        """
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        with one_line_faults(self.uri):
            yield mlflow.MlflowClient(self.uri)

    def open_run(self, name: str, *, parent: str | None = None) -> Run:
        """Start a run, nested under the run ``parent`` if given; the caller finishes it.

        Raises:
            ConfigError: the tracking server refuses.
        """
        run = Run(self, f"{KEY_PREFIX}{uuid.uuid4().hex}")
        self.tell(creation(run.key, name, parent))
        return run

    def reopen(self, key: str) -> Run | None:
        """The run of this key, or of this id in MLflow, running again; none where the experiment holds no such run.

        As long as the server is away, it is taken to hold the run.

        Raises:
            ConfigError: the tracking server refuses.
        """
        try:
            self.catch_up()
            with self.answering() as client:
                found = self._sender.find(client, self._experiment or "", key)
                if found is None:
                    return None
                client.update_run(found, status="RUNNING")
        except ServerAway as error:
            self._note_absence(error)
        return Run(self, key)

    @contextmanager
    def run(self, name: str, *, parent: str | None = None) -> Iterator[Run]:
        """Start a run for the length of the block; it ends FINISHED, FAILED on an error, KILLED on an interrupt.

        Raises:
            ConfigError: the tracking server refuses.
        """
        with self.open_run(name, parent=parent).ending() as run:
            yield run

    def known_id(self, key: str) -> str:
        """MLflow's id of the run made with this key; the key itself as long as the server has not answered."""
        return self._sender.ids.get(key, key)

    def tell(self, call: Call) -> None:
        """Send a call after all that was kept, or keep it too if the server is away.

        Raises:
            ConfigError: the tracking server refuses.
        """
        if time.monotonic() >= self._silent_until:
            try:
                self.catch_up()
                self._send(call)
                return
            except ServerAway as error:
                self._note_absence(error)
        self._journal.append(call)

    def catch_up(self) -> None:
        """Send what was kept; what the server refuses is reported and left out.

        Raises:
            ServerAway: the server does not answer; everything stays kept.
            ConfigError: the experiment cannot be opened.
        """
        if self._experiment is None:
            with self.answering() as client:
                self._experiment = _open_experiment(client, self.uri, self._name)
        with self._journal.pending() as calls:
            for call in calls:
                try:
                    self._send(call, again=True)
                except ServerAway:
                    raise
                except ConfigError as error:
                    print(f"dllm2rec: not sent: {error}", file=sys.stderr)

    def _send(self, call: Call, again: bool = False) -> None:
        with self.answering() as client:
            self._sender.send(client, self._experiment or "", call, again)

    def _note_absence(self, error: ServerAway) -> None:
        if not self._silent_until:
            print(f"dllm2rec: {error}: kept in {self._journal.file} and sent when it answers", file=sys.stderr)
        self._silent_until = time.monotonic() + RETRY_SECONDS


def absolute_uri(uri: str) -> str:
    """A relative SQLite path made absolute, so that processes started elsewhere find the same file."""
    return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}" if uri.startswith(_SQLITE) else uri


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
    path = Path(uri.removeprefix(_SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA schema_version")
