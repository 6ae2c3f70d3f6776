"""The trie against plain lists of token sequences."""

from itertools import pairwise

import numpy as np
import pytest

from teacher_infer.trie import WIDE, Node, TitleTrie

END = 0


@pytest.fixture(scope="module")
def titles() -> list[list[int]]:
    """400 titles of items, some of them alike, many with a common beginning; token ids beyond two bytes."""
    generator = np.random.default_rng(0)
    drawn = [[7, *(generator.integers(1, 6, generator.integers(1, 7)) * 20_000).tolist(), END] for _ in range(400)]
    assert len(set(map(tuple, drawn))) < len(drawn)
    return drawn


def nodes(trie: TitleTrie, node: Node) -> list[Node]:
    if len(trie.tokens(node.start)) == node.depth:
        return []
    bounds = trie.children(node).bounds.tolist()
    below = [Node(start, stop, node.depth + 1) for start, stop in pairwise(bounds)]
    return [node, *(found for child in below for found in nodes(trie, child))]


def check(trie: TitleTrie, titles: dict[int, list[int]]) -> None:
    distinct = sorted(set(map(tuple, titles.values())))
    assert [tuple(trie.tokens(title)) for title in range(len(trie))] == distinct
    assert trie.longest == max(map(len, distinct))
    for title, tokens in enumerate(distinct):
        items = sorted(item for item, other in titles.items() if tuple(other) == tokens)
        assert trie.items(title) == items
        assert all(trie.title_of(item) == title for item in items)
    for node in nodes(trie, trie.root):
        prefix = tuple(trie.prefix(node))
        below = [tokens for tokens in distinct if tokens[: node.depth] == prefix]
        assert below == distinct[node.start : node.stop]
        children = trie.children(node)
        assert children.tokens.tolist() == sorted({tokens[node.depth] for tokens in below})
        for token, longest in zip(children.tokens, children.longest, strict=True):
            assert longest == max(len(tokens) for tokens in below if tokens[node.depth] == token)


def test_every_node_holds_the_titles_with_its_prefix(titles):
    check(TitleTrie(titles), dict(enumerate(titles)))


def test_a_saved_trie_is_mapped_into_memory(titles, tmp_path):
    TitleTrie(titles).save(tmp_path)
    trie = TitleTrie.load(tmp_path)
    assert isinstance(trie._tokens, np.memmap)
    check(trie, dict(enumerate(titles)))
    check(trie.within(range(50)), dict(enumerate(titles[:50])))


def test_the_usual_length_does_not_count_the_longest_hundredth():
    trie = TitleTrie([*([at, END] for at in range(1, 200)), [*range(1, 400), END]])
    assert (trie.usual, trie.longest) == (2, 400)


def test_a_part_of_the_catalogue_keeps_its_item_numbers(titles):
    items = [399, 3, 3, *range(100, 200)]
    check(TitleTrie(titles).within(items), {item: titles[item] for item in items})


def test_the_part_without_items_is_empty(titles):
    assert len(TitleTrie(titles).within([])) == 0


def test_children_of_wide_nodes_are_the_same_when_asked_again(titles):
    trie = TitleTrie(titles)
    assert len(trie) > WIDE
    assert trie.children(trie.root) is trie.children(trie.root)
