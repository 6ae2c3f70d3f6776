"""Opens the output directory of a search: to begin, to go on, or to refuse."""

from collections.abc import Mapping
from typing import Any

from cluster.config import has_effect
from cluster.run_record import flatten
from cluster.storage import MANIFEST_FILE, check_free
from student_train.config import TrainConfig
from tune.config import TuneConfig, render
from tune.earlier import starting_points
from tune.journal import SEARCH_FILE, TRIALS_FILE, Journal
from tune.space import Space

_WITHOUT_EFFECT = (
    "trials",
    "cpus_per_trial",
    "gpus_per_trial",
    "retries",
    "start_from",
    "register_as",
    "output",
    "overwrite",
    "cluster",
    "tracking",
    "search.space",
    "train.dataset",
    "train.labels",
    *(f"train.{name}" for name, field in TrainConfig.model_fields.items() if not has_effect(field)),
    "train.resources",
)


def open_journal(config: TuneConfig, base: TrainConfig, space: Space, inputs: Mapping[str, str]) -> Journal:
    """The journal in ``config.output``; from now on the directory counts as unfinished.

    Raises:
        ConfigError: a search that begins finds nothing to start from.
        OutputError: the directory holds something else or another search, or another process works on it.
    """
    ours = any((config.output / name).exists() for name in (SEARCH_FILE, TRIALS_FILE))
    if not ours:
        check_free(config.output, "tune", config.overwrite)
    begun = (config.output / SEARCH_FILE).exists() and not config.overwrite
    starts = starting_points(base, space, config.search.objectives[0], None if begun else config.start_from)
    journal = Journal(config.output, identity(config, space, inputs), starts, anew=config.overwrite)
    (config.output / MANIFEST_FILE).unlink(missing_ok=True)
    return journal


def identity(config: TuneConfig, space: Space, inputs: Mapping[str, str]) -> dict[str, str]:
    """All that decides the results of a search, as text by name; how many trials there are does not change them."""
    settings: dict[str, Any] = {f"search.space.{path}": render(domain) for path, domain in space.items()}
    settings |= {f"fingerprint of the {name}": value for name, value in inputs.items()}
    unused = [name for name in ("asha", "pbt") if name != config.search.scheduler]
    learns = config.search.scheduler == "asha" or config.search.algorithm == "optuna"
    if learns and config.search.scheduler != "pbt":
        settings |= {"concurrent": str(config.concurrent)}
    if config.search.scheduler == "pbt":
        settings["trials"] = str(config.trials)
    if config.train.resources.workers > 1:
        settings["train.resources.workers"] = str(config.train.resources.workers)
    if config.start_from:
        # Not which one: it may be moved or made larger, and search.json holds the points that were taken from it.
        settings["start_from"] = "an earlier search"
    for name, value in flatten(config).items():
        left_out = name.startswith(tuple(f"{section}." for section in unused)) or name == "concurrent"
        if not left_out and not any(name == path or name.startswith(f"{path}.") for path in _WITHOUT_EFFECT):
            settings[name] = value
    return settings
