"""The end of a search: the best setting trained in full and registered, beside a student without teacher or search."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from ray import tune as ray_tune

from cluster.errors import ConfigError, ModelError, StaleInputError
from cluster.identity import deciding
from cluster.paths import storage_path
from cluster.run_record import RunRecord
from cluster.storage import Manifest, read_manifest
from cluster.tracking import ServerAway, Tracker
from model_registry.register import register_student
from model_registry.versions import ModelVersion, Registry
from student_train.config import TrainConfig
from student_train.train import check_inputs, train
from tune.config import TuneConfig
from tune.journal import Record
from tune.space import point_config

STUDENT_FOLDER, PLAIN_FOLDER, CHECKPOINT_FOLDER = "student", "plain", ".best"


@dataclass(frozen=True)
class Champion:
    """The best student and what it is compared with."""

    config: TrainConfig
    student: Manifest
    plain: Manifest


def best_of(records: list[Record], metric: str) -> Record:
    """The best trial by a metric.

    Raises:
        ConfigError: every trial failed.
    """
    done = [record for record in records if record.state != "failed"]
    if not done:
        raise ConfigError(f"all {len(records)} trials failed; the first one: {records[0].reason}")
    return max(done, key=lambda record: record.best(metric))


def set_champion(config: TuneConfig, base: TrainConfig, best: Record) -> Champion:
    """Train the best student and the plain one; what is there already is not done again."""
    chosen, start = best_config(config, base, best), None
    if config.search.scheduler == "pbt":
        start = _kept(best, config.output) / str(base.seed)
    student = _trained(chosen, config.output / STUDENT_FOLDER, start)
    return Champion(chosen, student, _trained(plain_config(base), config.output / PLAIN_FOLDER))


def _kept(best: Record, output: Path) -> Path:
    """Its checkpoint; one on this machine's disks is copied to the output, for the storage is cleared in the end."""
    if best.checkpoint and "://" in best.checkpoint:
        return storage_path(best.checkpoint)
    return Path(ray_tune.Checkpoint(best.checkpoint).to_directory(str(output.absolute() / CHECKPOINT_FOLDER)))


def best_config(config: TuneConfig, base: TrainConfig, best: Record) -> TrainConfig:
    """What ``dllm2rec train`` is to train.

    After population based training nothing is: the settings changed on the way, so that no training would repeat it,
    and the checkpoint holds the student.
    """
    chosen = point_config(base, best.point)
    if config.search.scheduler == "pbt":
        return chosen.model_copy(update={"epochs": best.epoch, "patience": best.epoch})
    return chosen


def plain_config(base: TrainConfig) -> TrainConfig:
    """What is had without a teacher and without a search: the train section as it is given, without its labels.

    The winner's settings without its teacher would be a weaker rival: they were chosen for a student with one.
    """
    return base.model_copy(update={"labels": None})


def register_best(config: TuneConfig, tracker: Tracker, student: Manifest, parent: RunRecord) -> str:
    """Register the best student, unless it is the newest version already; returns what became of it, in words.

    Raises:
        ConfigError: the tracking server refuses.
    """
    try:
        version = _registered(config, tracker, student, parent)
    except ServerAway as error:
        return f"not registered ({error}): the same command registers it later"
    return f"{version.name} version {version.version}"


def _trained(config: TrainConfig, output: Path, start_from: Path | None = None) -> Manifest:
    with suppress(StaleInputError, ValidationError):
        made = read_manifest(output, "train")
        same = deciding(TrainConfig.model_validate(made.config)) == deciding(config)
        if same and made.inputs == check_inputs(config):
            return made
    made_here = config.model_copy(update={"output": output, "overwrite": True})
    return read_manifest(train(made_here, start_from), "train")


def _registered(config: TuneConfig, tracker: Tracker, student: Manifest, parent: RunRecord) -> ModelVersion:
    with suppress(ModelError):
        newest = Registry(tracker).version(config.register_as)
        if newest.tags.get("fingerprint.student") == student.fingerprint:
            return newest
    return register_student(tracker, config.output / STUDENT_FOLDER, config.register_as, parent)
