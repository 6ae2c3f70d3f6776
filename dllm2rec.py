"""The console command: a table of verbs, nothing else."""

import sys
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import NamedTuple

from cluster.config import Config, SubmitConfig, load_config
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
        "tune.compare_config:CompareConfig",
        "tune.compare:compare",
        "students × strategies × seeds, tables and pictures",
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
        "model_registry.recommend_config:RecommendConfig", "model_registry.recommend:recommend", "titles for histories"
    ),
    "demo": Verb("demo.config:DemoConfig", "demo.demo:demo", "the whole pipeline on synthetic data"),
}
SUBMIT = "submit"


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit with code 0, or with 2 and one line on standard error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        _dispatch([a for a in arguments if a != "--debug"])
    except (UserError, StudentError) as error:
        if debug:
            raise
        print(f"dllm2rec: error: {error}", file=sys.stderr)
        sys.exit(2)


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return
    name, *rest = arguments
    if name == SUBMIT:
        sys.exit(_submit(rest))
    config = _config(name, rest)
    resolve_name(VERBS[name].run)(config)


def _config(name: str, arguments: Sequence[str]) -> Config:
    if name not in VERBS:
        raise ConfigError(f"unknown verb `{name}`: verbs are {', '.join([*VERBS, SUBMIT])}")
    return load_config(resolve_name(VERBS[name].config), name, list(VERBS), arguments)


def _submit(arguments: Sequence[str]) -> int:
    """Check the whole command line here, so that no faulty job reaches the cluster."""
    own, job = _split_at_verb(arguments)
    config = load_config(SubmitConfig, SUBMIT, [SUBMIT, *VERBS], own)
    if not job:
        raise ConfigError(f"no verb to submit: dllm2rec {SUBMIT} [OPTIONS] VERB [VERB OPTIONS]")
    verb, *rest = job
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
    return "usage: dllm2rec VERB [--config FILE] [OPTIONS]   (--help after a verb lists its options)\n\n" + "\n".join(
        lines
    )


if __name__ == "__main__":
    main()
