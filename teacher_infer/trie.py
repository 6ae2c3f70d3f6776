"""The catalogue's titles as a trie of tokens: sorted token sequences, in which a node is a range of neighbours."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cluster.files import local_copy, written

ARRAYS = ("_tokens", "lengths_T", "_token_bounds", "_items", "_item_bounds", "_title_of")
WIDE = 64  # titles below a node from which on its children are remembered

Ints = npt.NDArray[np.int64]


class Node(NamedTuple):
    """The titles ``start`` … ``stop - 1``, which agree in their first ``depth`` tokens."""

    start: int
    stop: int
    depth: int


class Children(NamedTuple):
    """The C children of a node: tokens [C], ascending; titles where each begins, and the last ends [C + 1]; tokens of
    the longest title below each [C].
    """

    tokens: Ints
    bounds: Ints
    longest: Ints


class TitleTrie:
    """T distinct titles in the order of their tokens, each with the items that bear it.

    Memory is four bytes per token of the catalogue and a few numbers per title and item.

    Args:
        titles: the tokens of every item's title, ending with the end of text; none is the beginning of another.
    """

    def __init__(self, titles: Sequence[Sequence[int]]) -> None:
        items_of: dict[bytes, list[int]] = defaultdict(list)
        for item, tokens in enumerate(titles):
            items_of[np.asarray(tokens, ">u4").tobytes()].append(item)  # big-endian bytes sort like the numbers
        order = sorted(items_of)
        self._set(
            np.frombuffer(b"".join(order), ">u4").astype(np.int32),
            [len(key) // 4 for key in order],
            [items_of[key] for key in order],
        )

    def _set(self, tokens: npt.NDArray[np.int32], lengths_T: Sequence[int], items_T: Sequence[Sequence[int]]) -> None:
        self._tokens = tokens
        self.lengths_T = np.array(lengths_T, dtype=np.int64)
        self._token_bounds = np.concatenate([[0], np.cumsum(self.lengths_T)])
        self._items = np.fromiter((item for items in items_T for item in items), np.int64)
        self._item_bounds = np.concatenate([[0], np.cumsum(np.fromiter(map(len, items_T), np.int64))])
        self._title_of = np.full(int(self._items.max(initial=-1)) + 1, -1)
        self._title_of[self._items] = np.repeat(np.arange(len(self)), np.diff(self._item_bounds))
        self._children: dict[Node, Children] = {}

    def save(self, folder: Path) -> None:
        """Write the trie as files of plain arrays."""
        for name in ARRAYS:
            with written(folder / f"{name}.npy") as aside, aside.open("wb") as stream:
                np.save(stream, getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """A saved trie, its arrays mapped into memory: processes of a machine share them.

        Raises:
            OSError: it is not there.
            ValueError: a file is damaged.
        """
        trie = cls.__new__(cls)
        for name in ARRAYS:
            setattr(trie, name, np.load(local_copy(folder / f"{name}.npy"), mmap_mode="r"))
        trie._children = {}
        return trie

    def __len__(self) -> int:
        return len(self.lengths_T)

    @property
    def root(self) -> Node:
        """The node of all titles."""
        return Node(0, len(self), 0)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest title."""
        return int(self.lengths_T.max(initial=0))

    @cached_property
    def usual(self) -> int:
        """Tokens that all but the longest hundredth of the titles have at most."""
        return int(np.quantile(self.lengths_T, 0.99, method="lower")) if len(self) else 0

    def title_of(self, item: int) -> int:
        """The title of an item."""
        return int(self._title_of[item])

    def items(self, title: int) -> list[int]:
        """The items that bear a title, in their order."""
        return self._items[self._item_bounds[title] : self._item_bounds[title + 1]].tolist()

    def tokens(self, title: int, start: int = 0, stop: int | None = None) -> list[int]:
        """Tokens ``start`` … ``stop - 1`` of a title; up to its end without ``stop``."""
        begin, end = self._token_bounds[title : title + 2]
        return self._tokens[begin + start : end if stop is None else begin + stop].tolist()

    def prefix(self, node: Node) -> list[int]:
        """The tokens [depth] that a node's titles agree in."""
        return self.tokens(node.start, 0, node.depth)

    def children(self, node: Node) -> Children:
        """The tokens that may follow a node, and their nodes."""
        if node.stop - node.start < WIDE:
            return self._split(node)
        if node not in self._children:
            self._children[node] = self._split(node)
        return self._children[node]

    def _split(self, node: Node) -> Children:
        column = self._tokens[self._token_bounds[node.start : node.stop] + node.depth]
        begins = np.flatnonzero(np.diff(column, prepend=-1))
        longest = np.maximum.reduceat(self.lengths_T[node.start : node.stop], begins)
        bounds = np.append(begins, len(column)) + node.start
        return Children(column[begins].astype(np.int64), bounds, longest)

    def within(self, items: Iterable[int]) -> "TitleTrie":
        """The trie of some items only."""
        kept: dict[int, list[int]] = defaultdict(list)
        for item in sorted(set(items)):
            kept[self.title_of(item)].append(item)
        titles = sorted(kept)
        tokens = np.array([token for title in titles for token in self.tokens(title)], dtype=np.int32)
        part = TitleTrie.__new__(TitleTrie)
        part._set(tokens, self.lengths_T[titles].tolist(), [kept[title] for title in titles])
        return part
