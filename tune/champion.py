"""The end of a search: the best point trained in full and registered, beside a student without teacher or search."""

from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ModelError, StaleInputError
from cluster.identity import deciding
from cluster.run_record import RunRecord
from cluster.storage import Manifest, read_manifest
from cluster.tracking import ServerAway, Tracker
from model_registry.register import register_student
from model_registry.versions import ModelVersion, Registry
from student_train.config import TrainConfig
from student_train.train import check_inputs, train
from tune.checkpoints import CHECKPOINTS_FOLDER
from tune.config import TuneConfig
from tune.outcome import Outcome
from tune.run import trial_config
from tune.space import point_config

STUDENT_FOLDER = "student"
PLAIN_FOLDER = "plain"


@dataclass(frozen=True)
class Crowned:
    """The champion and what it is compared with."""

    config: TrainConfig
    student: Manifest
    plain: Manifest


def set_champion(config: TuneConfig, base: TrainConfig, best: Outcome) -> Crowned:
    """Train the best student and the plain one; what is there already is not done again."""
    chosen = best_config(config, base, best)
    student = _trained(chosen, config.output / STUDENT_FOLDER, weights_of(config, best))
    plain = _trained(plain_config(base, chosen), config.output / PLAIN_FOLDER)
    return Crowned(chosen, student, plain)


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


def best_config(config: TuneConfig, base: TrainConfig, best: Outcome) -> TrainConfig:
    """What ``dllm2rec train`` is to train; in PBT as long as the best step had trained."""
    chosen = point_config(base, best.point)
    if config.search.scheduler != "pbt":
        return chosen
    epochs = int(best.records[0].history[-1]["epoch"])
    return chosen.model_copy(update={"epochs": epochs, "patience": trial_config(config, base).patience})


def weights_of(config: TuneConfig, best: Outcome) -> Path | None:
    """In PBT the checkpoint of the best step: its settings changed on the way, so that no training would repeat it."""
    if config.search.scheduler != "pbt":
        return None
    return config.output.absolute() / CHECKPOINTS_FOLDER / str(best.records[0].number)


def plain_config(base: TrainConfig, chosen: TrainConfig) -> TrainConfig:
    """The best student without its teacher; in a search without a teacher the train section's own student."""
    if base.labels is None:
        return base
    return chosen.model_copy(update={"labels": None, "epochs": base.epochs, "patience": base.patience})


def _trained(config: TrainConfig, output: Path, start_from: Path | None = None) -> Manifest:
    try:
        made = read_manifest(output, "train")
        if _same(made, config):
            return made
    except StaleInputError:
        pass
    made_here = config.model_copy(update={"output": output, "overwrite": True})
    return read_manifest(train(made_here, start_from), "train")


def _same(made: Manifest, config: TrainConfig) -> bool:
    recorded = TrainConfig.model_validate(made.config)
    return deciding(recorded) == deciding(config) and made.inputs == check_inputs(config)


def _registered(config: TuneConfig, tracker: Tracker, student: Manifest, parent: RunRecord) -> ModelVersion:
    try:
        newest = Registry(tracker).version(config.register_as)
        if newest.tags.get("fingerprint.student") == student.fingerprint:
            return newest
    except ModelError:
        pass
    return register_student(tracker, config.output / STUDENT_FOLDER, config.register_as, parent)
