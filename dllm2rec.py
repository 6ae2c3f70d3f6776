"""The console command, and the Python API: every verb is a function of its config.

>>> import dllm2rec
>>> dllm2rec.train(dataset="runs/dataset", labels="runs/labels", output="runs/student")
>>> student = dllm2rec.load_student("runs/student")
>>> student.recommend([["HP 62 Black Ink Cartridge"]], k=10)
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

from pydantic import ValidationError

from cluster.config import Config, SubmitConfig, describe, load_config, without_credentials
from cluster.console import VERBOSE, quiet_driver
from cluster.errors import ConfigError, UserError
from student_serve.errors import StudentError


class Verb(NamedTuple):
    """Where a verb's config and its function stand; both are imported only when the verb is called."""

    config: str
    run: str
    does: str


VERBS = {
    "prepare": Verb("data_prep.config:PrepareConfig", "data_prep.prepare:prepare", "raw logs and titles to a data set"),
    "train-teacher": Verb(
        "teacher_train.config:TrainTeacherConfig", "teacher_train.train:train_teacher", "train an LLM into a teacher"
    ),
    "label": Verb("teacher_infer.config:LabelConfig", "teacher_infer.label:label", "label rows with a teacher (vLLM)"),
    "import-labels": Verb(
        "teacher_infer.exchange_config:ImportConfig",
        "teacher_infer.exchange:import_labels",
        "files of the official code to a data set and labels",
    ),
    "export-labels": Verb(
        "teacher_infer.exchange_config:ExportConfig",
        "teacher_infer.exchange:export_labels",
        "a data set and labels to files of the official code",
    ),
    "train": Verb("student_train.config:TrainConfig", "student_train.train:train", "train and distil a student"),
    "tune": Verb("tune.config:TuneConfig", "tune.search:tune", "search the distillation weights (Ray Tune)"),
    "compare": Verb(
        "tune.compare_config:CompareConfig", "tune.compare:compare", "models × strategies × seeds, tables and pictures"
    ),
    "track": Verb("tune.track_config:TrackConfig", "tune.track:track", "send what directories hold to MLflow"),
    "register": Verb(
        "model_registry.config:RegisterConfig", "model_registry.register:register", "a student into the registry"
    ),
    "promote": Verb(
        "model_registry.config:PromoteConfig",
        "model_registry.promote:promote",
        "make a version the champion if better",
    ),
    "rollback": Verb(
        "model_registry.config:RollbackConfig",
        "model_registry.promote:rollback",
        "make the champion before it the champion again",
    ),
    "recommend": Verb(
        "model_registry.config:RecommendConfig", "model_registry.recommend:recommend", "titles for histories"
    ),
    "jobs": Verb("cluster.config:JobsConfig", "cluster.job_control:jobs", "list, follow and stop submitted jobs"),
    "doctor": Verb("cluster.doctor_config:DoctorConfig", "cluster.doctor:doctor", "check an environment or a cluster"),
    "demo": Verb("demo.config:DemoConfig", "demo.demo:demo", "the complete pipeline on synthetic data"),
}
SUBMIT, JOBS = "submit", "jobs"
LOAD_STUDENT = "model_registry.loaded:load_student"
ROOMS = (
    *("cluster", "data_prep", "demo", "dllm2rec", "model_registry", "student_serve", "student_train"),
    *("teacher_infer", "teacher_train", "tune"),
)


def __getattr__(name: str) -> Any:  # noqa: ANN401  # a verb, a config class or load_student
    """Verbs as functions, their configs as classes, and ``load_student``; each is imported when it is asked for."""
    if name == "load_student":
        return resolve_name(LOAD_STUDENT)
    for title, verb in VERBS.items():
        if name == title.replace("-", "_"):
            return _function(name, verb)
        if name == verb.config.partition(":")[2]:
            return resolve_name(verb.config)
    raise AttributeError(f"module `dllm2rec` has no attribute `{name}`")


def __dir__() -> list[str]:
    verbs = [[title.replace("-", "_"), verb.config.partition(":")[2]] for title, verb in VERBS.items()]
    return sorted([*globals(), "load_student", *(name for both in verbs for name in both)])


def _function(name: str, verb: Verb) -> Callable[..., Path]:
    """A verb for Python: takes its config, or the config's fields by keyword, and returns the output directory."""

    def run(config: Config | None = None, /, **settings: Any) -> Path:  # noqa: ANN401  # any field
        model = resolve_name(verb.config)
        if config is not None and settings:
            raise ConfigError(f"{name}: give a config or fields, not both")
        try:
            made = config or model(**settings)
        except ValidationError as error:
            raise ConfigError(describe(error)) from error
        if not isinstance(made, model):
            raise ConfigError(f"{name} takes a {model.__name__}, or its fields by keyword; not a {type(made).__name__}")
        output: Path = resolve_name(verb.run)(made)
        return output

    run.__name__ = run.__qualname__ = name
    run.__doc__ = f"{verb.does[0].upper()}{verb.does[1:]}: see :class:`{verb.config.partition(':')[2]}`."
    return run


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit with code 0, or with 2 and one line on standard error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if "--verbose" in arguments:
        os.environ[VERBOSE] = "1"
    quiet_driver()
    try:
        _refuse_shadows(Path.cwd())
        _dispatch([a for a in arguments if a not in ("--debug", "--verbose")])
    except (UserError, StudentError) as error:
        if debug:
            raise
        print(f"dllm2rec: error: {without_credentials(str(error))}", file=sys.stderr)
        sys.exit(2)


def _refuse_shadows(directory: Path) -> None:
    """Workers look for modules in the working directory first: one of the user's must not stand before ours.

    Raises:
        ConfigError: names the file.
    """
    home = Path(__file__).resolve().parent
    if directory.resolve() == home:
        return
    for room in ROOMS:
        for place in (directory / f"{room}.py", directory / room / "__init__.py"):
            if place.is_file() and place.resolve().parent != home:
                raise ConfigError(
                    f"{place} has the name of a module of dllm2rec, and Python would take it instead: run the command "
                    "in another directory, or rename it"
                )
    sys.path.append(str(directory))  # for models, losses, strategies and sources of the user's own


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return
    name, *rest = arguments
    if name == SUBMIT:
        sys.exit(_submit(rest))
    config = _config(name, rest)
    if name == JOBS:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported.
    resolve_name(VERBS[name].run)(config)


def _config(name: str, arguments: Sequence[str]) -> Config:
    if name not in VERBS:
        raise ConfigError(f"unknown verb `{name}`: verbs are {', '.join([*VERBS, SUBMIT])}")
    return load_config(resolve_name(VERBS[name].config), name, list(VERBS), arguments)


def _submit(arguments: Sequence[str]) -> int:
    """Check the complete command line here, so that no faulty job reaches the cluster."""
    own, job = _split_at_verb(["--wait=False" if word == "--no-wait" else word for word in arguments])
    config = load_config(SubmitConfig, SUBMIT, [SUBMIT, *VERBS], own)
    if not job:
        raise ConfigError(f"no verb to submit: dllm2rec {SUBMIT} [OPTIONS] VERB [VERB OPTIONS]")
    verb, *rest = job
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported.
    return resolve_name("cluster.jobs:submit")(config, verb, rest, _config(verb, rest))


def _split_at_verb(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        has_value = "=" not in arguments[at] and arguments[at] not in ("-h", "--help")
        at += 2 if has_value else 1
    return list(arguments[:at]), list(arguments[at:])


def _usage() -> str:
    lines = [f"  {name:<14} {verb.does}" for name, verb in VERBS.items()]
    lines.append(f"  {SUBMIT:<14} run a verb as a job on a Ray cluster")
    usage = "usage: dllm2rec VERB [--config FILE] [OPTIONS]"
    flags = (
        "--help after a verb lists its options; --verbose shows what engines print, --debug the traceback of an error"
    )
    return "\n".join([usage, "", *lines, "", flags])


if __name__ == "__main__":
    main()
