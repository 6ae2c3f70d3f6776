"""The checkpoints that members of population based training hand on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from tune.config import TuneConfig
from tune.journal import Journal
from tune.outcome import best_of, outcomes_of

CHECKPOINTS_FOLDER = ".checkpoints"
ROUNDS = 2  # newest whole rounds whose checkpoints stay; the next one starts from the newest


def keep(folder: Path, number: int, save: Callable[[Path], None]) -> None:
    """Leave a checkpoint under its trial's number that is whole or not there."""
    aside, place = folder / f".{number}-{os.getpid()}", folder / str(number)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save(aside)
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)


class Prune(tune.Callback):
    """Removes, round by round, the checkpoints that nobody will start from; that of the best trial so far stays."""

    def __init__(self, journal: Journal, config: TuneConfig, size: int) -> None:
        """``size``: trials per round."""
        self._journal, self._config, self._size = journal, config, size
        self._rounds = 0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ANN401
        """After a round, of which Ray Tune says nothing itself."""
        rounds = len(self._journal.records) // self._size
        if rounds > max(self._rounds, ROUNDS):
            self._prune((rounds - ROUNDS) * self._size)
        self._rounds = rounds

    def _prune(self, first: int) -> None:
        records = [self._journal.records[number] for number in range(first + ROUNDS * self._size)]
        if all(record.state == "failed" for record in records):
            return
        best = best_of(outcomes_of(records, self._config)).records[0].number
        for checkpoint in (self._config.output / CHECKPOINTS_FOLDER).iterdir():
            number = int(checkpoint.name.lstrip(".").split("-")[0])
            if number < first and number != best:
                shutil.rmtree(checkpoint, ignore_errors=True)
