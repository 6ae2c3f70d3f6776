"""The verb ``track``: what finished directories hold, as MLflow runs."""

from collections.abc import Callable, Iterable
from pathlib import Path

from cluster.console import say
from cluster.errors import ConfigError
from cluster.run_record import RunRecord
from cluster.storage import read_manifest
from cluster.tracking import Tracker
from student_train.student_run import student_run
from tune.search_runs import runs_of
from tune.track_config import TrackConfig

_RUNS: dict[str, Callable[[Path], Iterable[RunRecord]]] = {
    "train": lambda directory: [student_run(directory)],
    "tune": runs_of,
    "compare": runs_of,
}


def track(config: TrackConfig) -> None:
    """Send the runs of finished directories; what is there already is not sent again.

    Raises:
        StaleInputError: a directory is unfinished.
        ConfigError: a directory holds no runs, or the tracking server does not answer or refuses.
    """
    if not config.directories:
        raise ConfigError("no directory to track: dllm2rec track DIR…")
    tracker = Tracker(config.tracking)
    for directory in config.directories:
        verb = read_manifest(directory).verb
        if verb not in _RUNS:
            raise ConfigError(f"{directory} was made by `dllm2rec {verb}`: runs are those of {', '.join(_RUNS)}")
        ids = [tracker.send(run) for run in _RUNS[verb](directory)]
        say(f"{directory}: {len(ids)} run{'s' * (len(ids) > 1)} at {tracker.shown_uri}, the first is {ids[0]}")
