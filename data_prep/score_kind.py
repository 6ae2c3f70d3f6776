"""What teacher scores mean, whichever way the teacher ranks."""

from torch import Tensor

from data_prep.schema import ScoreKind


def distances(scores: Tensor, kind: ScoreKind) -> Tensor:
    """Scores with smaller ones better: L2 of unit vectors for a cosine, minus the log-probability for that."""
    if kind == "cosine":
        return (2 - 2 * scores).clamp(min=0).sqrt()
    return scores if kind == "distance" else -scores


def sign(kind: ScoreKind) -> int:
    """+1 where larger scores are better, -1 where smaller ones are."""
    return -1 if kind == "distance" else 1
