"""What a search takes from an earlier one: its best points, to begin with."""

from pathlib import Path
from statistics import median

from pydantic import ValidationError

from cluster.errors import ConfigError
from student_train.config import TrainConfig, value_at
from tune.config import Value
from tune.journal import TRIALS_FILE, Record
from tune.space import Space, own_point

TAKEN = 5


def starting_points(base: TrainConfig, space: Space, metric: str, earlier: Path | None) -> list[dict[str, Value]]:
    """The points that a search tries first: that of the train section, then the best ones of an earlier search.

    Points that the space does not hold are left out; a field that the earlier search did not vary has the train
    section's value.

    Raises:
        ConfigError: ``earlier`` holds no search, or none of its points lies in the space.
    """
    own = own_point(base, space)
    starts = [own] if own else []
    if earlier:
        found = _points(earlier, base, space, metric)
        if not found:
            raise ConfigError(f"`start_from` = {earlier}: none of its points lies in this search's space")
        starts += [point for point in found if point != own][:TAKEN]
    return starts


def _points(directory: Path, base: TrainConfig, space: Space, metric: str) -> list[dict[str, Value]]:
    """Points of the space, best first, by the median over the trials of each."""
    trials: dict[str, list[Record]] = {}
    for record in _records(directory):
        if record.state != "failed":
            trials.setdefault(str(record.point), []).append(record)
    ranked = sorted(trials.values(), key=lambda some: median(record.best(metric) for record in some), reverse=True)
    filled = [{path: some[0].point.get(path, value_at(base, path)) for path in space} for some in ranked]
    held = [point for point in filled if all(space[path].holds(value) for path, value in point.items())]
    return [point for at, point in enumerate(held) if point not in held[:at]]


def _records(directory: Path) -> list[Record]:
    try:
        lines = (directory / TRIALS_FILE).read_text().splitlines(keepends=True)
        return [Record.model_validate_json(line) for line in lines if line.endswith("\n")]
    except (OSError, ValidationError):
        raise ConfigError(
            f"`start_from` = {directory} holds no search: give the output directory of a `dllm2rec tune`"
        ) from None
