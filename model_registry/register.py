"""The verb ``register``: a student directory into the registry."""

from pathlib import Path

from cluster.console import say
from cluster.errors import ModelError
from cluster.files import write_json
from cluster.run_record import RunRecord
from cluster.storage import fingerprint, output_directory, read_manifest
from cluster.tracking import Tracker
from model_registry.champion import name_challenger
from model_registry.config import RegisterConfig
from model_registry.versions import ModelVersion, Registry
from student_train.student_run import student_run

VERSION_FILE = "version.json"


def register(config: RegisterConfig) -> Path:
    """Register a student directory, and write down which version it became.

    Raises:
        StaleInputError, ModelError, StudentError: see :func:`register_student`.
        ConfigError: the tracking server does not answer.
        OutputError: the output directory holds something else.
    """
    inputs = {"student": read_manifest(config.student, "train").fingerprint}
    with output_directory(
        config.output, verb="register", config=config, inputs=inputs, overwrite=config.overwrite
    ) as draft:
        made = register_student(Tracker(config.tracking), config.student, config.name)
        write_json(draft.path / VERSION_FILE, {"name": made.name, "version": made.version})
    say(f"registered as {made.name} version {made.version}")
    return config.output


def register_student(tracker: Tracker, directory: Path, name: str, parent: RunRecord | None = None) -> ModelVersion:
    """Register a student as the next version of ``name``: signature, example, metrics and fingerprints as tags.

    The version is an output of the run of the student's training, which is sent where it is missing.

    Args:
        tracker: where to.
        directory: of the student.
        name: of the registered model.
        parent: the run that a new run of the training stands under.

    Raises:
        StaleInputError: the directory holds no finished student.
        ModelError: its files differ from those its manifest describes.
        StudentError: its files do not load.
        ConfigError: the tracking server does not answer.
    """
    manifest = read_manifest(directory, "train")
    if fingerprint(directory) != manifest.fingerprint:
        raise ModelError(f"{directory} was changed after it was written: run `dllm2rec train` again")
    made_from = manifest.inputs | {"student": manifest.fingerprint}
    tags = {f"fingerprint.{input_}": value for input_, value in made_from.items()}
    tags |= {metric: repr(value) for metric, value in manifest.metrics.items()}
    registry = Registry(tracker)
    made = registry.add(name, directory, student_run(directory, parent), tags)
    name_challenger(registry, name)
    return made
