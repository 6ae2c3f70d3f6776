"""Beam search for a free answer, as transformers does it: of log-probabilities, whichever engine computes them."""

from collections.abc import Sequence
from typing import NamedTuple


class Beam(NamedTuple):
    """The tokens of an answer so far and their log-probability."""

    tokens: list[int]
    logprob: float

    @property
    def score(self) -> float:
        """Log-probability per token."""
        return self.logprob / len(self.tokens)


class BeamSearch:
    """The search of one row: up to ``width`` beams that are ``open``, and the best ``width`` answers that ended."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.open: list[Beam] = [Beam([], 0.0)]
        self._ended: list[Beam] = []

    def take(self, children: Sequence[Beam], end: int | None, left: int) -> None:
        """Go on with the best children of the open beams; those that the token ``end`` ends are answers.

        The search is over when no open beam can become better than the worst answer: log-probabilities only fall, and
        an answer gets at most ``left`` tokens more.
        """
        best = sorted(children, key=lambda beam: -beam.logprob)[: 2 * self._width]
        ended = [beam for beam in best[: self._width] if beam.tokens[-1] == end]
        self._ended = sorted([*self._ended, *ended], key=lambda beam: -beam.score)[: self._width]
        self.open = [beam for beam in best if beam.tokens[-1] != end][: self._width]
        if len(self._ended) == self._width and self.open:
            bound = self.open[0].logprob / (len(self.open[0].tokens) + left)
            if bound <= self._ended[-1].score:
                self.open = []

    def best(self) -> list[int]:
        """The tokens of the best answer, ended or not."""
        return max([*self._ended, *self.open], key=lambda beam: beam.score).tokens
