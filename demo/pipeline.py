"""The configs of all verbs of one pipeline: a YAML file's sections, with inputs and outputs under one folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from cluster.config import Config, describe, read_yaml
from cluster.errors import ConfigError
from data_prep.config import PrepareConfig
from demo.config import DemoConfig
from student_train.config import TrainConfig
from teacher_infer.config import LabelConfig
from teacher_infer.locate import MINILM
from teacher_train.config import TrainTeacherConfig
from tune.config import TuneConfig, without_unused

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Pipeline:
    """What each verb is called with; ``train_teacher`` is none where the teacher is at hand."""

    prepare: PrepareConfig
    train_teacher: TrainTeacherConfig | None
    labels: dict[str, LabelConfig]
    """Configs by the teacher's name in the table."""
    students: dict[str, list[TrainConfig]]
    """Configs by the student's name in the table, one per seed."""
    tune: TuneConfig | None

    def distilled_from(self, labels: Path) -> "Pipeline":
        """The same with other labels for all that is distilled."""
        students = {
            name: [one.model_copy(update={"labels": labels}) if one.labels else one for one in several]
            for name, several in self.students.items()
        }
        tune = self.tune and self.tune.model_copy(
            update={"train": self.tune.train.model_copy(update={"labels": labels})}
        )
        return replace(self, students=students, tune=tune)


def plan(demo: DemoConfig) -> Pipeline:
    """Lay out the pipeline of ``demo.pipeline`` under ``demo.output``.

    Raises:
        ConfigError: the file or a section is malformed.
    """
    document = read_yaml(demo.pipeline)
    shared = {"overwrite": demo.overwrite, "cluster": demo.cluster.model_dump()}
    folder = {name: demo.output / name for name in ("dataset", "teacher", "labels", "students", "search")}

    def section(model: type[C], verb: str, **changes: object) -> C:
        try:
            return model.model_validate((document.get(verb) or {}) | changes)
        except ValidationError as error:
            raise ConfigError(f"{demo.pipeline}: {describe(error, prefix=verb)}") from error

    prepare = section(PrepareConfig, "prepare", output=folder["dataset"], overwrite=demo.overwrite)
    train_teacher, teacher = None, {}
    if "train-teacher" in document:
        train_teacher = section(
            TrainTeacherConfig, "train-teacher", dataset=folder["dataset"], output=folder["teacher"], **shared
        )
        teacher = {"teacher": str(folder["teacher"])}
    label = section(LabelConfig, "label", dataset=folder["dataset"], output=folder["labels"], **teacher, **shared)
    labels = {f"teacher ({label.ranking})": label}
    if demo.text_teacher and label.ranking != "embed":
        update = {"ranking": "embed", "teacher": MINILM, "output": demo.output / "labels-text"}
        labels["teacher (embed)"] = label.model_copy(update=update)
    base = section(TrainConfig, "train", dataset=folder["dataset"], labels=folder["labels"], register_as=None, **shared)
    tune = None
    if demo.search:
        tune = section(TuneConfig, "tune", output=folder["search"], register_as=demo.register_as, **shared)
        tune = tune.model_copy(update={"train": without_unused(base), "tracking": demo.tracking})
    return Pipeline(prepare, train_teacher, labels, _students(demo, base, folder["students"]), tune)


def _students(demo: DemoConfig, base: TrainConfig, folder: Path) -> dict[str, list[TrainConfig]]:
    """Every student plain and distilled, with every seed."""
    configs: dict[str, list[TrainConfig]] = {}
    for student in demo.students:
        for kind, labels in (("plain", None), ("distilled", base.labels)):
            update = {"model": base.model.model_copy(update={"name": student}), "labels": labels}
            configs[f"{student} {kind}"] = [
                base.model_copy(update=update | {"seed": seed, "output": folder / f"{student}-{kind}-{seed}"})
                for seed in demo.seeds
            ]
    return configs
