"""MLflow's view of a search: a run per trial under the search's run, written from the journal, each once."""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from cluster.config import Config
from cluster.errors import ConfigError
from cluster.mlflow_client import ServerAway
from cluster.tracking import Run, Tracker
from tune.journal import Journal, Record

TRIAL_TAG = "trial"


class RunRecorder:
    """Writes the runs of ended trials in a thread of its own, so that no trial waits for MLflow."""

    def __init__(self, tracker: Tracker, parent: str, metric: str) -> None:
        self._tracker = tracker
        self._parent = parent
        self._metric = metric
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._writing: list[Future[None]] = []

    def catch_up(self, journal: Journal) -> None:
        """Record the journal's trials that have no finished run, as after a kill; half-written runs are deleted.

        A server that is away puts that off to the next time.

        Raises:
            ConfigError: the tracking server refuses.
        """
        if not journal.ended:
            return
        with suppress(ServerAway):
            recorded = self._recorded()
            for record in journal.ended:
                if str(record.number) not in recorded:
                    self.record(record)

    def record(self, record: Record) -> None:
        """Write the run of one trial, soon."""
        self._writing.append(self._thread.submit(self._write, record))

    def finish(self) -> None:
        """Wait until all is written; what the server refuses is told and left out."""
        self._thread.shutdown()
        for future in self._writing:
            try:
                future.result()
            except ConfigError as error:
                print(f"dllm2rec: not recorded: {error}", file=sys.stderr)

    def _recorded(self) -> set[str | None]:
        """Numbers of the trials that have a finished run, after deleting the runs that a kill left unfinished."""
        recorded = set()
        with self._tracker.answering() as client:
            experiment = client.get_run(self._parent).info.experiment_id
            query, token = f"tags.`mlflow.parentRunId` = '{self._parent}'", None
            while True:
                runs = client.search_runs([experiment], query, page_token=token)
                for run in runs:
                    if run.info.status != "RUNNING":
                        recorded.add(run.data.tags.get(TRIAL_TAG))
                    elif TRIAL_TAG in run.data.tags:
                        client.delete_run(run.info.run_id)
                token = runs.token
                if not token:
                    return recorded

    def _write(self, record: Record) -> None:
        run = self._tracker.open_run(f"trial {record.number}", parent=self._parent)
        run.set_tags({TRIAL_TAG: str(record.number), "state": record.state} | _tags(record))
        run.log_params(record.point)
        for seed, history in record.histories.items():
            name = "validation_{}" if len(record.histories) == 1 else f"validation_{{}}_seed_{seed}"
            run.log_curve(
                (int(at["epoch"]), {n if n == "loss" else name.format(n): value for n, value in at.items()})
                for at in history
            )
        if record.histories:
            run.log_metrics({f"best_validation_{self._metric}": record.best(self._metric)} | record.measures)
        run.finish("FAILED" if record.state == "failed" else "FINISHED")


def _tags(record: Record) -> dict[str, str]:
    parent = {} if record.parent is None else {"parent_trial": str(record.parent)}
    return parent | ({"reason": record.reason} if record.reason else {})


@contextmanager
def search_run(
    tracker: Tracker, journal: Journal, name: str, settings: Config, inputs: Mapping[str, str]
) -> Iterator[Run]:
    """The search's run for the length of the block: the one that the journal names, running again, or a new one.

    A new one also where the server does not know the named one, as another server does not.

    Args:
        tracker: where to.
        journal: of the search.
        name: of a new run.
        settings: its parameters.
        inputs: fingerprints by name, its tags.

    Raises:
        ConfigError: the tracking server refuses.
    """
    known = journal.notes.get("run")
    run = tracker.reopen(known) if known else None
    if run is None:
        run = tracker.open_run(name)
        run.log_params(settings)
        run.set_tags({f"fingerprint.{name}": value for name, value in inputs.items()})
        journal.note(run=run.key)
    with run.ending():
        yield run
