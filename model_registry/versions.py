"""The MLflow registry of models: register, find by version or alias, move an alias, load."""

import contextlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.errors import ModelError
from cluster.run_record import metric_name
from cluster.tracking import MlflowException, Tracker, mlflow

_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[\w\-]+)|/(?P<version>[1-9]\d*))")


@dataclass(frozen=True)
class ServedModel:
    """A model as MLflow stores it: a script that ends in ``mlflow.models.set_model``, and what the script needs."""

    script: Path
    artifacts: dict[str, Path]
    code: list[Path]
    requirements: list[str]
    example: pd.DataFrame
    signature: mlflow.models.ModelSignature
    params: dict[str, Any]


@dataclass(frozen=True)
class ModelVersion:
    """One version in the registry with its tags."""

    name: str
    version: int
    tags: dict[str, str]

    def __str__(self) -> str:
        return f"`{self.name}` version {self.version}"


class Registry:
    """The registered models of one MLflow store."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def register(self, run_id: str, name: str, model: ServedModel, tags: Mapping[str, str]) -> ModelVersion:
        """Store a model as an output of a run and as the next version of the registered model ``name``.

        Raises:
            ConfigError: the tracking server does not answer or refuses the name.
        """
        named = {metric_name(key): value for key, value in tags.items()}
        with self._tracker.client(), contextlib.redirect_stderr(io.StringIO()):
            with mlflow.start_run(run_id=run_id):
                logged = mlflow.pyfunc.log_model(
                    name=name,
                    python_model=str(model.script),
                    artifacts={key: str(path.absolute()) for key, path in model.artifacts.items()},
                    code_paths=[str(path) for path in model.code],
                    signature=model.signature,
                    input_example=(model.example, model.params),
                    pip_requirements=model.requirements,
                )
            made = mlflow.register_model(logged.model_uri, name, tags=named)
        return ModelVersion(name, int(made.version), named)

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a registered model, oldest first.

        Raises:
            ModelError: there is no such model.
            ConfigError: the tracking server does not answer.
        """
        with self._tracker.client() as client:
            known = client.search_model_versions(f"name = '{name}'")
        if not known:
            raise ModelError(
                f"no model `{name}` is registered at {self._tracker.uri}: run `dllm2rec tune` to register one"
            )
        made = [ModelVersion(name, int(version.version), dict(version.tags)) for version in known]
        return sorted(made, key=lambda model: model.version)

    def version(self, name: str, number: int | None = None) -> ModelVersion:
        """A version of a registered model, the newest if no number is given.

        Raises:
            ModelError: there is no such model or version.
            ConfigError: the tracking server does not answer.
        """
        known = {model.version: model for model in self.versions(name)}
        number = max(known) if number is None else number
        if number not in known:
            raise ModelError(f"`{name}` has no version {number}: it has {', '.join(map(str, known))}")
        return known[number]

    def with_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that carries an alias, or None.

        Raises:
            ModelError: there is no such model.
            ConfigError: the tracking server does not answer.
        """
        self.version(name)
        with self._tracker.client() as client:
            number = client.get_registered_model(name).aliases.get(alias)
        return None if number is None else self.version(name, int(number))

    def set_alias(self, model: ModelVersion, alias: str) -> None:
        """Move an alias to a version.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        with self._tracker.client() as client:
            try:
                client.set_registered_model_alias(model.name, alias, str(model.version))
            except MlflowException:
                # Of two processes that both find no such alias, the store refuses the second; now there is one to move.
                client.set_registered_model_alias(model.name, alias, str(model.version))

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away, if some version has it.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        with self._tracker.client() as client:
            client.delete_registered_model_alias(name, alias)

    def set_tag(self, model: ModelVersion, key: str, value: str | None) -> None:
        """Put a tag on a version, or take it off for none.

        Raises:
            ConfigError: the tracking server does not answer.
        """
        with self._tracker.client() as client:
            if value is None:
                client.delete_model_version_tag(model.name, str(model.version), key)
            else:
                client.set_model_version_tag(model.name, str(model.version), key, value)

    def resolve(self, uri: str) -> ModelVersion:
        """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names.

        Raises:
            ModelError: the address is malformed, or there is no such model, alias or version.
            ConfigError: the tracking server does not answer.
        """
        parts = _MODEL_URI.fullmatch(uri)
        if not parts:
            raise ModelError(f"`{uri}` names no model: write models:/NAME@champion or models:/NAME/3")
        if parts["version"]:
            return self.version(parts["name"], int(parts["version"]))
        found = self.with_alias(parts["name"], parts["alias"])
        if found is None:
            raise ModelError(f"no version of `{parts['name']}` is `{parts['alias']}`: run `dllm2rec promote` first")
        return found

    def pull(self, model: ModelVersion, folder: Path, expected: mlflow.models.ModelSignature) -> Path:
        """Fetch a registered model's directory into ``folder``.

        Raises:
            ModelError: its files are gone, or its signature is not the expected one.
            ConfigError: the tracking server does not answer.
        """
        path = self.pull_file(model, "", folder)
        try:
            signature = mlflow.models.Model.load(path).signature
        except (MlflowException, OSError) as error:
            raise ModelError(f"{model} holds no readable MLmodel: train and register it again") from error
        if signature != expected:
            raise ModelError(f"{model} is another kind of model: its signature differs; register a student again")
        return path

    def pull_file(self, model: ModelVersion, file: str, folder: Path) -> Path:
        """Fetch one file of a registered model into ``folder``, or the whole directory for none.

        Raises:
            ModelError: it is not there.
            ConfigError: the tracking server does not answer.
        """
        uri = "/".join(filter(None, (f"models:/{model.name}/{model.version}", file)))
        with self._tracker.client():
            try:
                path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
                if not path.exists():
                    raise FileNotFoundError(path)
                return path
            except (MlflowException, OSError) as error:
                raise ModelError(f"{model} holds no {file or 'files'}: train and register it again") from error
