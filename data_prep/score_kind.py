"""What teacher scores mean, whichever way the teacher ranks."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor

from data_prep.schema import ScoreKind, Split


def distances(scores: Tensor, kind: ScoreKind) -> Tensor:
    """Scores with smaller ones better: L2 of unit vectors for a cosine, minus the log-probability for that."""
    if kind == "cosine":
        return (2 - 2 * scores).clamp(min=0).sqrt()
    return scores if kind == "distance" else -scores


def sign(kind: ScoreKind) -> int:
    """+1 where larger scores are better, -1 where smaller ones are."""
    return -1 if kind == "distance" else 1


class ScoreScale(NamedTuple):
    """What the teacher's scores of the true items of all rows of a split are compared with.

    ``mean`` and ``deviation`` are of these scores, ``level`` is the mean of exp(± deviations from the mean).
    """

    mean: float
    deviation: float
    level: float

    @classmethod
    def of(cls, kind: ScoreKind, read: Callable[[], Iterable[Tensor]]) -> Self:
        """The scale of scores that ``read`` gives a part at a time, twice; none may be needed together."""
        count, total, squares = 0, 0.0, 0.0
        for part in read():
            mean = float(part.double().mean())
            before = total / count if count else mean
            # The squares around the common mean, from those around the means of two parts (Chan et al., 1979).
            squares += float((part.double() - mean).square().sum())
            squares += (mean - before) ** 2 * count * len(part) / (count + len(part))
            count, total = count + len(part), total + mean * len(part)
        scale = cls(total / max(count, 1), max((squares / max(count, 1)) ** 0.5, 1e-12), 1.0)
        levels = sum(float(scale.confidence(part, kind).sum()) for part in read())
        return scale._replace(level=levels / max(count, 1))

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float], split: Split) -> Self | None:
        """The scale that a manifest holds, if it does."""
        names = [f"{split}_score_{name}" for name in cls._fields]
        return cls(*(metrics[name] for name in names)) if all(name in metrics for name in names) else None

    def metrics(self, split: Split) -> dict[str, float]:
        """The scale as a manifest holds it."""
        return {f"{split}_score_{name}": value for name, value in self._asdict().items()}

    def confidence(self, scores: Tensor, kind: ScoreKind) -> Tensor:
        """exp(± deviations from the mean), 1 on average over all rows: large where the teacher knew the true item."""
        return torch.exp(sign(kind) * (scores.double() - self.mean) / self.deviation) / self.level
