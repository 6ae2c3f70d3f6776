"""Hands proposals to Ray Tune in their order, each as soon as the trials have ended that it may know."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray.tune.search import Searcher

from cluster.errors import OutputError
from tune.halving import Rungs
from tune.journal import Journal, Record
from tune.proposals import Proposal, Proposals

Split = Callable[[Sequence[Proposal]], list[list[Proposal]]]


class OrderedSearcher(Searcher):
    """Proposals become known in batches, of which those that can train together are one of Ray Tune's trials.

    What the journal holds is not run again.
    """

    def __init__(self, proposals: Proposals, journal: Journal, batch: int, split: Split, rungs: Rungs | None) -> None:
        """``split`` says which of a batch train together; ``rungs``, if there are any, what they have to reach."""
        super().__init__()
        self._proposals = proposals
        self._journal = journal
        self._batch = batch
        self._split = split
        self._rungs = rungs
        self._next = 0
        self._ended: list[Record] = []
        self._waiting: deque[list[Proposal]] = deque()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ray Tune's question for the next trial: none for later."""
        while not self._waiting and self._next < self._proposals.total and self._journal.fault is None:
            if not self._propose():
                return None
        if not self._waiting or self._journal.fault is not None:
            return Searcher.FINISHED
        return {"members": [proposal.as_dict() for proposal in self._waiting.popleft()]}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: :class:`tune.follow.Follow` keeps trials that end."""

    def _propose(self) -> bool:
        """The next batch, unless trials are still running that it may know."""
        known = self._proposals.known(self._next)
        while len(self._ended) < known and len(self._ended) in self._journal.records:
            self._ended.append(self._journal.records[len(self._ended)])
            if self._rungs:
                self._rungs.learn(self._ended[-1])
        if len(self._ended) < known:
            return False
        numbers = range(self._next, min(self._next + self._batch, self._proposals.total))
        bars = self._rungs.bars() if self._rungs else {}
        batch = [replace(self._proposals.propose(number, self._ended), bars=bars) for number in numbers]
        self._next = numbers.stop
        self._waiting.extend(self._split([proposal for proposal in batch if not self._done(proposal)]))
        return True

    def _done(self, proposal: Proposal) -> bool:
        record = self._journal.records.get(proposal.number)
        if record and (record.point, record.seed) != (proposal.point, proposal.seed):
            self._journal.fault = OutputError(
                f"{self._journal.directory}: trial {proposal.number} was another point than the search proposes now "
                "(another version of dllm2rec or optuna): choose another --output or add --overwrite True"
            )
        return record is not None

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal holds all there is."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see :meth:`save`."""
