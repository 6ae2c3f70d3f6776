"""The MLflow registry of models: register, find by version or alias, move an alias, load."""

import contextlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from cluster.tracking import Run, Tracker, metric_name

# isort: split
# cluster.tracking sets the environment that MLflow reads when it is imported.
import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

CHAMPION = "champion"
_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[\w\-]+)|/(?P<version>[1-9]\d*))")


@dataclass(frozen=True)
class ServedModel:
    """A model as MLflow stores it: a script that ends in ``mlflow.models.set_model``, and what the script needs."""

    script: Path
    artifacts: dict[str, Path]
    code: list[Path]
    requirements: list[str]
    example: pd.DataFrame
    answer: pd.DataFrame
    params: dict[str, Any]


@dataclass(frozen=True)
class ModelVersion:
    """One version in the registry with its tags."""

    name: str
    version: int
    tags: dict[str, str]


class Registry:
    """The registered models of one MLflow store."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def register(self, run: Run, name: str, model: ServedModel, tags: Mapping[str, str]) -> ModelVersion:
        """Store a model as an output of ``run`` and as the next version of the registered model ``name``.

        Raises:
            ConfigError: the tracking server does not answer or refuses the name.
        """
        signature = mlflow.models.infer_signature(model.example, model.answer, model.params)
        named = {metric_name(key): value for key, value in tags.items()}
        with self._tracker.answering(), contextlib.redirect_stderr(io.StringIO()):
            with mlflow.start_run(run_id=run.id):
                logged = mlflow.pyfunc.log_model(
                    name=name,
                    python_model=str(model.script),
                    artifacts={key: str(path.absolute()) for key, path in model.artifacts.items()},
                    code_paths=[str(path) for path in model.code],
                    signature=signature,
                    input_example=(model.example, model.params),
                    pip_requirements=model.requirements,
                )
            made = mlflow.register_model(logged.model_uri, name, tags=named)
        return ModelVersion(name, int(made.version), named)

    def version(self, name: str, number: int | None = None) -> ModelVersion:
        """A version of a registered model, the newest if no number is given.

        Raises:
            ModelError: there is no such model or version.
            ConfigError: the tracking server does not answer.
        """
        with self._tracker.answering() as client:
            known = {int(made.version): made for made in client.search_model_versions(f"name = '{name}'")}
        if not known:
            raise ModelError(
                f"no model `{name}` is registered at {self._tracker.uri}: run `dllm2rec tune` to register one"
            )
        number = max(known) if number is None else number
        if number not in known:
            raise ModelError(f"`{name}` has no version {number}: it has {', '.join(map(str, sorted(known)))}")
        return ModelVersion(name, number, dict(known[number].tags))

    def with_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that carries an alias, or None.

        Raises:
            ModelError: there is no such model.
            ConfigError: the tracking server does not answer.
        """
        self.version(name)
        with self._tracker.answering() as client:
            number = client.get_registered_model(name).aliases.get(alias)
        return None if number is None else self.version(name, int(number))

    def set_alias(self, model: ModelVersion, alias: str) -> None:
        """Move an alias to a version.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        with self._tracker.answering() as client:
            client.set_registered_model_alias(model.name, alias, str(model.version))

    def resolve(self, uri: str) -> ModelVersion:
        """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names.

        Raises:
            ModelError: the address is malformed, or there is no such model, alias or version.
            ConfigError: the tracking server does not answer.
        """
        parts = _MODEL_URI.fullmatch(uri)
        if not parts:
            raise ModelError(f"`{uri}` names no model: write models:/NAME@{CHAMPION} or models:/NAME/3")
        if parts["version"]:
            return self.version(parts["name"], int(parts["version"]))
        found = self.with_alias(parts["name"], parts["alias"])
        if found is None:
            raise ModelError(f"no version of `{parts['name']}` is `{parts['alias']}`: run `dllm2rec promote` first")
        return found

    def load(self, model: ModelVersion) -> mlflow.pyfunc.PyFuncModel:
        """Fetch a registered model, ready to ``predict``.

        Raises:
            ModelError: its files are gone or do not load.
            ConfigError: the tracking server does not answer.
        """
        with self._tracker.answering():
            try:
                return mlflow.pyfunc.load_model(f"models:/{model.name}/{model.version}")
            except (MlflowException, ImportError, OSError) as error:
                reason = " ".join(str(error).split())[:200]
                raise ModelError(f"`{model.name}` version {model.version} cannot be loaded: {reason}") from error
