"""Opens the output directory of a search: to begin, to go on, or to refuse."""

import shutil
from collections.abc import Mapping
from typing import Any

from cluster.run import flatten
from cluster.storage import MANIFEST_FILE, check_free
from student_train.config import WITHOUT_EFFECT
from tune.config import TuneConfig, render
from tune.journal import SEARCH_FILE, TRIALS_FILE, Journal
from tune.space import Space

_WITHOUT_EFFECT = (
    "trials",
    "cpus_per_trial",
    "gpus_per_trial",
    "retries",
    "start_from",  # its points stand among the inputs
    "register_as",
    "output",
    "overwrite",
    "cluster",
    "tracking",
    "search.space",
    "train.dataset",
    "train.labels",
    *(f"train.{name}" for name in WITHOUT_EFFECT),
)


def open_journal(config: TuneConfig, space: Space, inputs: Mapping[str, str]) -> Journal:
    """The journal in ``config.output``; from now on the directory counts as unfinished.

    Raises:
        OutputError: the directory holds something else or another search, or another process works on it.
    """
    ours = any((config.output / name).exists() for name in (SEARCH_FILE, TRIALS_FILE))
    if not ours:
        check_free(config.output, "tune", config.overwrite)
    if config.overwrite:
        shutil.rmtree(config.output, ignore_errors=True)
    journal = Journal(config.output, identity(config, space, inputs))
    (config.output / MANIFEST_FILE).unlink(missing_ok=True)
    return journal


def identity(config: TuneConfig, space: Space, inputs: Mapping[str, str]) -> dict[str, str]:
    """All that decides the results of a search, as text by name; how many trials there are does not change them."""
    settings: dict[str, Any] = {f"search.space.{path}": render(domain) for path, domain in space.items()}
    settings |= {f"fingerprint of the {name}": value for name, value in inputs.items()}
    unused = [name for name in ("asha", "pbt") if name != config.search.scheduler]
    learns = config.search.scheduler == "asha" or config.search.algorithm == "optuna"
    if learns and config.search.scheduler != "pbt":
        settings |= {"concurrent": str(config.concurrent), "together": str(config.together)}
    if config.search.scheduler == "pbt":
        settings["trials"] = str(config.trials)
    for name, value in flatten(config).items():
        left_out = name.startswith(tuple(f"{section}." for section in unused)) or name in ("concurrent", "together")
        if not left_out and not any(name == path or name.startswith(f"{path}.") for path in _WITHOUT_EFFECT):
            settings[name] = value
    return settings
