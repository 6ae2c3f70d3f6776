"""The registry of students in MLflow: put in, found by version or alias, fetched."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ModelError
from cluster.run_record import RunRecord, metric_name
from cluster.tracking import MlflowException, Tracker, mlflow
from model_registry.stored_model import SIGNATURE, store
from student_serve.recommender import ITEMS_FILE, MODEL_FILE, STUDENT_ARTIFACT

AGAIN = "train and register it again"
_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[\w\-]+)|/(?P<version>[1-9]\d*))")


@dataclass(frozen=True)
class ModelVersion:
    """One version in the registry with its tags."""

    name: str
    version: int
    tags: dict[str, str]

    def __str__(self) -> str:
        return f"`{self.name}` version {self.version}"


class Registry:
    """The registered students of one MLflow store; every method raises ConfigError if the server does not answer."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def add(self, name: str, directory: Path, run: RunRecord, tags: Mapping[str, str]) -> ModelVersion:
        """Store a student as an output of its run and as the next version of ``name``.

        Raises:
            StudentError: the student's files do not load.
            ConfigError: the server refuses the name.
        """
        named = {metric_name(key): value for key, value in tags.items()}
        run_id = self._tracker.send(run)
        with self._tracker.client():
            made = mlflow.register_model(store(directory, name, run_id), name, tags=named)
        return ModelVersion(name, int(made.version), named)

    def versions(self, name: str) -> dict[int, ModelVersion]:
        """All versions of a registered model by number, oldest first.

        Raises:
            ModelError: there is no such model.
        """
        with self._tracker.client() as client:
            found = {int(one.version): dict(one.tags) for one in client.search_model_versions(f"name = '{name}'")}
        if not found:
            raise ModelError(
                f"no model `{name}` is registered at {self._tracker.shown_uri}: run `dllm2rec register --name {name}`"
            )
        return {number: ModelVersion(name, number, found[number]) for number in sorted(found)}

    def version(self, name: str, number: int | None = None) -> ModelVersion:
        """A version of a registered model, the newest if no number is given.

        Raises:
            ModelError: there is no such model or version.
        """
        known = self.versions(name)
        number = max(known) if number is None else number
        if number not in known:
            raise ModelError(f"`{name}` has no version {number}: it has {', '.join(map(str, known))}")
        return known[number]

    def with_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that carries an alias, or None.

        Raises:
            ModelError: there is no such model.
        """
        known = self.versions(name)
        with self._tracker.client() as client:
            number = client.get_registered_model(name).aliases.get(alias)
        return None if number is None else known[int(number)]

    def set_alias(self, model: ModelVersion, alias: str) -> None:
        """Give an alias to a version; whichever had it has it no longer."""
        with self._tracker.client() as client:
            client.set_registered_model_alias(model.name, alias, str(model.version))

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away, if some version has it."""
        with self._tracker.client() as client:
            client.delete_registered_model_alias(name, alias)

    def resolve(self, uri: str) -> ModelVersion:
        """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names.

        Raises:
            ModelError: the address is malformed, or there is no such model, alias or version.
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

    def fetch(self, model: ModelVersion, folder: Path) -> Path:
        """Download a student into ``folder``; returns its directory there.

        Raises:
            ModelError: its files are gone, or it is no student.
        """
        path = self._download(model, "", folder)
        try:
            signature = mlflow.models.Model.load(path).signature
        except (MlflowException, OSError) as error:
            raise ModelError(f"{model} holds no readable MLmodel: {AGAIN}") from error
        if signature != SIGNATURE:
            raise ModelError(f"{model} is another kind of model: its signature differs; register a student again")
        student = path / "artifacts" / STUDENT_ARTIFACT
        for file in (MODEL_FILE, ITEMS_FILE):
            if not (student / file).is_file():
                raise ModelError(f"{model} is missing the file {file}: register the student again")
        return student

    def fetch_file(self, model: ModelVersion, file: str, folder: Path, advice: str) -> Path:
        """Download one file of a student into ``folder``.

        Raises:
            ModelError: it is not there; ends with the advice.
        """
        return self._download(model, f"/artifacts/{STUDENT_ARTIFACT}/{file}", folder, advice)

    def _download(self, model: ModelVersion, file: str, folder: Path, advice: str = AGAIN) -> Path:
        with self._tracker.client():
            try:
                uri = f"models:/{model.name}/{model.version}{file}"
                path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
                if not path.exists():
                    raise FileNotFoundError(path)
                return path
            except (MlflowException, OSError) as error:
                missing = Path(file).name or "files"
                raise ModelError(f"{model} holds no {missing}: {advice}") from error
