"""Hands proposals to Ray Tune in their order, each as soon as the trials have ended that it may know."""

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
        self._ended: list[Record] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ray Tune's question for the next trial: none for later."""
        while self._next < self._proposals.total and self._journal.fault is None:
            while len(self._ended) in self._journal.records:
                self._ended.append(self._journal.records[len(self._ended)])
            known = self._proposals.known(self._next)
            if known > len(self._ended):
                return None
            proposal = self._proposals.propose(self._next, self._ended[:known])
            self._next += 1
            if not self._done(proposal):
                return proposal.as_dict()
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: :class:`tune.follow.Follow` keeps trials that end."""

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
