"""What a way to rank has to work with."""

from collections.abc import Sequence

from torch import Tensor

from data_prep.schema import EMBEDDINGS_FILE, ScoreKind
from teacher_infer.config import LabelConfig
from teacher_infer.embeddings import read_whitening
from teacher_infer.job import Engines, Job
from teacher_infer.nearest import Catalogue, read_items
from teacher_infer.trie import TitleTrie
from teacher_infer.whitening import Whitening


class Teacher:
    """The teacher of one actor: its settings, the titles of all items [N], its engines and its item embeddings."""

    def __init__(self, job: Job, titles: Sequence[str], engines: Engines) -> None:
        self.config: LabelConfig = job.config
        self.titles, self.engines = titles, engines
        self._job = job

    def items(self) -> Tensor:
        """Item embeddings [N, E], memory-mapped."""
        return read_items(self.config.output / EMBEDDINGS_FILE)

    def catalogue(self, items_NE: Tensor, kind: ScoreKind) -> Catalogue:
        """The item embeddings to search, on the GPU where there is one."""
        device = "cuda" if self.config.resources.gpus else "cpu"
        return Catalogue(items_NE, kind, self.config.grounding_memory, device)

    def trie(self) -> TitleTrie | None:
        """The titles in tokens, memory-mapped; none where they were not read beforehand."""
        return TitleTrie.load(self._job.catalogue) if self._job.longest else None

    def whitening(self) -> Whitening | None:
        """What the item embeddings went through, if they did."""
        return read_whitening(self._job)
