"""An MLflow run, written call by call so that what a server misses can be kept and sent later, once."""

import contextlib
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Protocol

from cluster.config import Config
from cluster.errors import ConfigError
from cluster.journal import Call
from cluster.mlflow_client import mlflow

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

KEY_TAG = "dllm2rec.run"
KEY_PREFIX = "dllm2rec-"
RECORDED_PACKAGES = ("dllm2rec", "torch", "ray", "deepspeed", "mlflow")
_MOST_PARAMS, _MOST_METRICS = 100, 1000
_LONGEST_PARAM = 6000


class Teller(Protocol):
    """Takes calls; a :class:`cluster.tracking.Tracker`."""

    def tell(self, call: Call) -> None:
        """Send a call, or keep it."""
        ...

    def known_id(self, key: str) -> str:
        """MLflow's id of the run made with this key; the key itself as long as the server has not answered."""
        ...


class Run:
    """A run that is being written."""

    def __init__(self, teller: Teller, key: str) -> None:
        self.key = key
        self._teller = teller

    @property
    def id(self) -> str:
        """MLflow's id; as long as the server has not answered a name of our own, which serves as a parent too."""
        return self._teller.known_id(self.key)

    def log_params(self, params: Config | Mapping[str, Any]) -> None:
        """Record settings; nested ones are named ``outer.inner``.

        Raises:
            ConfigError: the tracking server refuses.
        """
        self._batch(params={key: value[:_LONGEST_PARAM] for key, value in flatten(params).items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record metrics of one step (epoch); ``hr@20`` becomes ``hr_at_20``, for MLflow allows no ``@``.

        Raises:
            ConfigError: the tracking server refuses.
        """
        self.log_curve([(step, metrics)])

    def log_curve(self, history: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Record metrics of many steps at once; see :meth:`log_metrics`.

        Raises:
            ConfigError: the tracking server refuses.
        """
        now = _now()
        self._batch(metrics=[[metric_name(k), float(v), now, step] for step, at in history for k, v in at.items()])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags.

        Raises:
            ConfigError: the tracking server refuses.
        """
        self._batch(tags={metric_name(key): value for key, value in tags.items()})

    def log_artifacts(self, paths: Iterable[Path]) -> None:
        """Upload files and directories.

        Raises:
            ConfigError: the tracking server refuses.
        """
        for path in paths:
            self._teller.tell({"call": "artifact", "run": self.key, "path": str(path.absolute())})

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Close the run.

        Raises:
            ConfigError: the tracking server refuses.
        """
        self._teller.tell({"call": "finish", "run": self.key, "status": status, "end": _now()})

    @contextlib.contextmanager
    def ending(self) -> Iterator["Run"]:
        """Finish the run with the block: FINISHED, FAILED on an error, KILLED on an interrupt.

        Raises:
            ConfigError: the tracking server refuses.
        """
        status: RunStatus = "KILLED"
        try:
            yield self
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            self.finish(status)

    def _batch(self, **content: Any) -> None:  # noqa: ANN401  # what JSON holds
        self._teller.tell({"call": "batch", "run": self.key, **content})


def creation(key: str, name: str, parent: str | None) -> Call:
    """The call that makes a run, with its start and the code that makes it."""
    tags = origin() | {KEY_TAG: key}
    return {"call": "create", "run": key, "name": name, "parent": parent, "start": _now(), "tags": tags}


class Sender:
    """Carries calls out at the server; twice does the same as once."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        """MLflow's ids of our runs."""

    def send(self, client: mlflow.MlflowClient, experiment: str, call: Call, again: bool) -> None:
        """Carry out a call; ``again`` says that the server may have got it before.

        Raises:
            ConfigError: the run was never made.
        """
        if call["call"] == "create":
            if not (again and self.find(client, experiment, call["run"])):
                self._create(client, experiment, call)
            return
        run = self._id(client, experiment, call["run"])
        if call["call"] == "batch":
            _send_batch(client, run, call)
        elif call["call"] == "finish":
            client.set_terminated(run, call["status"], call["end"])
        else:
            _send_artifact(client, run, Path(call["path"]))

    def find(self, client: mlflow.MlflowClient, experiment: str, key: str) -> str | None:
        """MLflow's id of the run of this key or id; none if the experiment holds no such run."""
        query = f"tags.`{KEY_TAG}` = '{key}'" if key.startswith(KEY_PREFIX) else f"attributes.run_id = '{key}'"
        runs = client.search_runs([experiment], query, max_results=1)
        if not runs:
            return None
        self.ids[key] = runs[0].info.run_id
        return self.ids[key]

    def _create(self, client: mlflow.MlflowClient, experiment: str, call: Call) -> None:
        parent = {"mlflow.parentRunId": self._id(client, experiment, call["parent"])} if call["parent"] else {}
        made = client.create_run(experiment, call["start"], call["tags"] | parent, call["name"])
        self.ids[call["run"]] = made.info.run_id

    def _id(self, client: mlflow.MlflowClient, experiment: str, key: str) -> str:
        if not key.startswith(KEY_PREFIX):
            return key
        if key not in self.ids and not self.find(client, experiment, key):
            raise ConfigError(f"the run {key} was never made")
        return self.ids[key]


def _send_batch(client: mlflow.MlflowClient, run: str, call: Call) -> None:
    params = [mlflow.entities.Param(key, value) for key, value in call.get("params", {}).items()]
    for at in range(0, len(params), _MOST_PARAMS):
        client.log_batch(run, params=params[at : at + _MOST_PARAMS])
    metrics = [mlflow.entities.Metric(*entry) for entry in call.get("metrics", [])]
    for at in range(0, len(metrics), _MOST_METRICS):
        client.log_batch(run, metrics=metrics[at : at + _MOST_METRICS])
    if tags := [mlflow.entities.RunTag(key, value) for key, value in call.get("tags", {}).items()]:
        client.log_batch(run, tags=tags)


def _send_artifact(client: mlflow.MlflowClient, run: str, path: Path) -> None:
    if path.is_dir():
        client.log_artifacts(run, str(path), path.name)
    else:
        client.log_artifact(run, str(path))


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


def origin() -> dict[str, str]:
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


def _now() -> int:
    return int(time.time() * 1000)
