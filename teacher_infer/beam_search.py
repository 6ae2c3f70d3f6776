"""Rankings of the catalogue by the teacher's own log-probability of each title: a walk through the trie of titles."""

import heapq
from bisect import insort
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from teacher_infer.engine import Logprobs, Prompt, VllmEngine
from teacher_infer.trie import Node, TitleTrie

LEAP = 3  # tokens left of a lone title from which on one question for all of them costs less than one for each
SPARE = 3  # prefixes beyond the beam for each within it; docs/results.md has what 1, 3 and 6 bring


class Found(NamedTuple):
    """The best K items of one row, or as many as there are, and what it took to find them.

    Items that share a title stand together, by index. A log-probability is that of title and end of text given the
    prompt, in nats, or its mean per token where the search normalises; ``target_logprobs`` has those of targets by
    item. ``cached`` of ``tokens`` came from the cache.
    """

    items: list[int]
    logprobs: list[float]
    target_logprobs: dict[int, float]
    dropped: int
    tokens: int
    cached: int


class _Width(NamedTuple):
    """How far to search: ``k`` items, by a beam or not, the first ``certain`` for sure."""

    k: int
    beams: int | None
    certain: int


class _Room(NamedTuple):
    """A row's prompt, and one that has lost more of its oldest titles for an answer that is longer than usual."""

    prompt: Prompt
    shorter: Prompt
    most: int
    """Tokens of prompt and answer together."""

    def before(self, answer: int) -> list[int]:
        """The tokens of the prompt that leaves room for an answer of this length."""
        fits = len(self.prompt.tokens) + answer < self.most
        return (self.prompt if fits else self.shorter).tokens


class _Prefix(NamedTuple):
    """A node, the log-probability of its tokens, and the best score a title below can reach. The best comes first."""

    minus_bound: float
    node: Node
    logprob: float


def search(
    engine: VllmEngine,
    histories: Sequence[Sequence[str]],
    trie: TitleTrie,
    k: int,
    beams: int | None,
    *,
    certain: int = 1,
    candidates: Sequence[Sequence[int]] | None = None,
    excluded: Sequence[Sequence[int]] | None = None,
    targets: Sequence[Sequence[int]] | None = None,
    normalise: bool = False,
) -> list[Found]:
    """Rank the catalogue's titles as answers to histories of titles.

    A beam search looks into at most ``beams`` prefixes at each depth. It misses good titles behind a beginning that is
    not among the best, so the best of the prefixes left aside are taken up again until ``k`` items are found and none
    that is left can lead to one of the first ``certain`` places (log-probabilities only fall). For those places at most
    ``SPARE`` times as many prefixes are looked into as in the beam itself, or else a teacher that hardly tells titles
    apart would have the whole catalogue looked into. Without ``beams`` all places are certain, and with ``k`` as large
    as the list of candidates every one is scored.

    A prompt leaves room for all but the longest hundredth of the titles; a longer one is asked for after a prompt that
    has lost more of its oldest titles, so that one long title does not cut the prompts of all others.

    Args:
        engine: an engine that generates.
        histories: titles of each row's history [B][L].
        trie: the whole catalogue, of the engine's ``title_tokens``.
        k: items wanted per row.
        beams: prefixes kept per row and depth; none goes by the best prefix, whatever its depth, until all is certain.
        certain: places of the ranking to make sure of: in them stands what exhaustive scoring would put there.
        candidates: the items that may be ranked, per row; all without.
        excluded: items left out of the ranking, per row.
        targets: the items per row whose log-probabilities are returned, ranked or not.
        normalise: rank by the mean log-probability per token.

    Returns:
        what was found, row by row. The same rows asked together give the same numbers to the last bit.
    """
    engine.forget()
    prompts = engine.prompts(histories, trie.usual + 1)
    if len(trie) and max((len(prompt.tokens) for prompt in prompts), default=0) + trie.longest < engine.room:
        shorter = prompts
    else:
        shorter = engine.prompts(histories, trie.longest + 1)
    walks = []
    for row, pair in enumerate(zip(prompts, shorter, strict=True)):
        left_out = list(excluded[row]) if excluded else []
        if candidates:
            part, left_out = trie.within(set(candidates[row]) - set(left_out)), []
        room = _Room(*pair, engine.room)
        walks.append(_Walk(room, part if candidates else trie, _Width(k, beams, certain), left_out, normalise))
    _run(engine, walks)
    return [walk.result() for walk in _with_targets(engine, walks, trie, targets)]


def _run(engine: VllmEngine, walks: Sequence["_Walk"]) -> None:
    """Walk as many rows together as have room for their prompts in half of the cache."""
    waiting, at_work, room = deque(walks), list["_Walk"](), engine.cache_tokens // 2
    while waiting or at_work:
        while waiting and (
            not at_work or sum(len(walk.prompt.tokens) for walk in at_work) + len(waiting[0].prompt.tokens) <= room
        ):
            at_work.append(waiting.popleft())
        _step(engine, at_work)
        at_work = [walk for walk in at_work if walk.open]


def _step(engine: VllmEngine, walks: Sequence["_Walk"]) -> None:
    """Look into the open prefixes of all walks."""
    asked = [(walk, prefix) for walk in walks for prefix in walk.open]
    leaps = [(walk, prefix) for walk, prefix in asked if walk.left(prefix) >= LEAP]
    steps = [(walk, prefix) for walk, prefix in asked if walk.left(prefix) < LEAP]
    children = [walk.trie.children(prefix.node) for walk, prefix in steps]
    answers = engine.next_logprobs([walk.text(prefix) for walk, prefix in steps], [c.tokens.tolist() for c in children])
    for (walk, prefix), answer in zip(steps, answers, strict=True):
        walk.descend(prefix, answer)
    ends = [walk.trie.tokens(prefix.node.start, prefix.node.depth) for walk, prefix in leaps]
    answers = engine.path_logprobs([walk.text(prefix) for walk, prefix in leaps], ends)
    for (walk, prefix), answer in zip(leaps, answers, strict=True):
        walk.finish(prefix, answer)
    for walk in walks:
        walk.choose()


class _Walk:
    """The search of one row."""

    def __init__(self, room: _Room, trie: TitleTrie, width: _Width, excluded: Sequence[int], normalise: bool) -> None:
        self.room, self.prompt, self.trie = room, room.prompt, trie
        self._width, self._normalise = width, normalise
        self._in_beam = width.beams is not None
        self._spare = 0  # prefixes that may yet be looked into to make sure
        self._excluded = set(excluded)
        touched = {trie.title_of(item) for item in self._excluded}
        self._dead = np.array(sorted(title for title in touched if not self._ranked(title)), dtype=np.int64)
        self.open = [_Prefix(0.0, trie.root, 0.0)] if len(self._dead) < len(trie) else []
        self._fresh: list[_Prefix] = []
        self._aside: list[_Prefix] = []  # a heap
        self._best: list[tuple[float, int, int, float]] = []  # minus score, first item, title, log-probability
        self._found = 0
        self._target_logprobs: dict[int, float] = {}
        self._tokens = self._cached = 0

    def text(self, prefix: _Prefix) -> list[int]:
        """The prompt and the prefix; a prefix of which only one title is left leaves room for all of it."""
        return self.room.before(prefix.node.depth + self.left(prefix)) + self.trie.prefix(prefix.node)

    def left(self, prefix: _Prefix) -> int:
        """Tokens left of the only title below; 0 where there are several."""
        start, stop, depth = prefix.node
        return int(self.trie.lengths_T[start]) - depth if stop - start == 1 else 0

    def descend(self, prefix: _Prefix, answer: Logprobs) -> None:
        """Take in the log-probabilities of a prefix's children."""
        self._count(answer)
        children = self.trie.children(prefix.node)
        depth = prefix.node.depth + 1
        logprobs = prefix.logprob + answer.values
        minus_bounds = -logprobs / children.longest if self._normalise else -logprobs
        starts, stops = children.bounds[:-1], children.bounds[1:]
        dead = np.searchsorted(self._dead, stops) - np.searchsorted(self._dead, starts)
        alive = np.flatnonzero(stops - starts > dead)
        columns = [column[alive].tolist() for column in (minus_bounds, starts, stops, logprobs)]
        for minus_bound, start, stop, logprob in zip(*columns, strict=True):
            below = _Prefix(minus_bound, Node(start, stop, depth), logprob)
            if stop - start == 1 and self.left(below) == 0:
                self._add(start, logprob)
            else:
                self._fresh.append(below)

    def finish(self, prefix: _Prefix, answer: Logprobs) -> None:
        """Take in the log-probabilities of all that is left of a prefix's only title."""
        self._count(answer)
        self._add(prefix.node.start, prefix.logprob + float(answer.values.sum()))

    def choose(self) -> None:
        """Open the prefixes that come next; none if the search is over."""
        fresh, self._fresh, self.open = self._fresh, [], []
        k, beams, certain = self._width
        if self._in_beam:
            fresh.sort(key=lambda prefix: (-prefix.logprob, prefix.node))
            last = self._bar(k)
            self.open = [prefix for prefix in fresh[:beams] if prefix.minus_bound <= last]
            self._in_beam, fresh = bool(self.open), fresh[beams:]
            self._spare += SPARE * len(self.open)
        for prefix in fresh:
            heapq.heappush(self._aside, prefix)
        if not self._in_beam:
            enough = beams is not None and self._found >= k
            last, room = self._bar(certain if enough else k), beams or k
            if enough:
                room = min(room, self._spare)
                self._spare -= room
            while self._aside and len(self.open) < room and self._aside[0].minus_bound <= last:
                self.open.append(heapq.heappop(self._aside))

    def expect(self, target: int, whole: TitleTrie) -> list[int] | None:
        """The title of the target, if its log-probability is not known yet."""
        for _, _, title, logprob in self._best:
            if target in self.trie.items(title):
                self._target_logprobs[target] = self._score(logprob, int(self.trie.lengths_T[title]))
                return None
        return whole.tokens(whole.title_of(target))

    def hear(self, target: int, answer: Logprobs) -> None:
        """Take in the log-probabilities of a target's title."""
        self._count(answer)
        self._target_logprobs[target] = self._score(float(answer.values.sum()), len(answer.values))

    def result(self) -> Found:
        """The best items."""
        ranked = [(item, -minus_score) for minus_score, _, title, _ in self._best for item in self._ranked(title)]
        items, scores = [item for item, _ in ranked[: self._width.k]], [score for _, score in ranked[: self._width.k]]
        return Found(items, scores, self._target_logprobs, self.prompt.dropped, self._tokens, self._cached)

    def _ranked(self, title: int) -> list[int]:
        return [item for item in self.trie.items(title) if item not in self._excluded]

    def _score(self, logprob: float, length: int) -> float:
        return logprob / length if self._normalise else logprob

    def _count(self, answer: Logprobs) -> None:
        self._tokens += answer.tokens
        self._cached += answer.cached

    def _bar(self, places: int) -> float:
        """Minus the score that a title needs to be among the first items; infinite while there are fewer."""
        for minus_score, _, title, _ in self._best:
            places -= len(self._ranked(title))
            if places <= 0:
                return minus_score
        return float("inf")

    def _add(self, title: int, logprob: float) -> None:
        """Keep a title among the best, and drop those that no longer reach the first K items."""
        items = self._ranked(title)
        insort(self._best, (-self._score(logprob, int(self.trie.lengths_T[title])), items[0], title, logprob))
        self._found += len(items)
        while self._found - (last := len(self._ranked(self._best[-1][2]))) >= self._width.k:
            self._best.pop()
            self._found -= last


def _with_targets(
    engine: VllmEngine, walks: Sequence[_Walk], trie: TitleTrie, targets: Sequence[Sequence[int]] | None
) -> Sequence[_Walk]:
    """Ask for the titles of targets that no walk came upon."""
    if targets is None:
        return walks
    wanted = [(walk, target) for walk, row in zip(walks, targets, strict=True) for target in dict.fromkeys(row)]
    missing = [(walk, target, title) for walk, target in wanted if (title := walk.expect(target, trie))]
    answers = engine.path_logprobs(
        [walk.room.before(len(title)) for walk, _, title in missing], [title for *_, title in missing]
    )
    for (walk, target, _), answer in zip(missing, answers, strict=True):
        walk.hear(target, answer)
    return walks
