"""Hands proposals to Ray Tune in their order, each as soon as the trials have ended that it may know."""

from collections.abc import Sequence
from typing import Any

from ray.tune.search import Searcher

from cluster.errors import OutputError
from tune.journal import Journal, Record
from tune.proposals import Proposal, Proposals


class OrderedSearcher(Searcher):
    """Trials of the journal are not run again."""

    def __init__(self, proposals: Proposals, journal: Journal) -> None:
        super().__init__()
        self._proposals = proposals
        self._journal = journal
        self._next = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ray Tune's question for the next trial: none for later."""
        while self._next < self._proposals.total and self._journal.fault is None:
            known = self._proposals.known(self._next)
            if any(number not in self._journal.records for number in range(known)):
                return None
            proposal = self._proposals.propose(self._next, self.earlier(self._next))
            self._next += 1
            if not self._ended(proposal):
                return proposal.as_dict()
        return Searcher.FINISHED

    def earlier(self, number: int) -> Sequence[Record]:
        """The trials that trial ``number`` may know, in order."""
        return [self._journal.records[at] for at in range(self._proposals.known(number))]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: :class:`tune.follow.Follow` keeps trials that end."""

    def _ended(self, proposal: Proposal) -> bool:
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
