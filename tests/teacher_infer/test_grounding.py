import pytest
import torch
from torch.nn import functional

from teacher_infer.grounding import Block, Catalogue

BLOCKS = [Block(), Block(rows=3, items=7), Block(rows=1, items=1000)]


def brute_force(queries, items, k, kind, excluded=None):
    """Full sort of all exact scores, ties by item index."""
    queries, items = queries.double(), items.double()
    if kind == "cosine":
        order_by = -(functional.normalize(queries, dim=1) @ functional.normalize(items, dim=1).T)
    else:
        order_by = torch.cdist(queries, items, compute_mode="donot_use_mm_for_euclid_dist")
    if excluded is not None:
        for row, columns in enumerate(excluded.tolist()):
            order_by[row, [c for c in columns if c < len(items)]] = torch.inf
    values, order = order_by.sort(dim=1, stable=True)
    return order[:, :k], (-values if kind == "cosine" else values)[:, :k].float()


def embeddings(seed, rows, width=16):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kind", ["distance", "cosine"])
def test_equals_brute_force(kind, block):
    items, queries = embeddings(0, 100), embeddings(1, 10)
    ranking = Catalogue(items, kind, block).rank(queries, 20)
    expected_items, expected_scores = brute_force(queries, items, 20, kind)
    assert torch.equal(ranking.items, expected_items)
    torch.testing.assert_close(ranking.scores, expected_scores)


@pytest.mark.parametrize("block", BLOCKS)
def test_ties_go_to_the_lower_index_however_many(block):
    items = embeddings(0, 5)[torch.arange(200) % 5]
    queries = items[:3] + 0.1
    ranking = Catalogue(items, "distance", block).rank(queries, 20)
    assert torch.equal(ranking.items, brute_force(queries, items, 20, "distance")[0])


def test_no_cancellation_far_from_the_origin():
    # float32 inner products of this size would lose all digits of the distances.
    items, queries = embeddings(0, 300) * 1e-3 + 1000, embeddings(1, 8) * 1e-3 + 1000
    ranking = Catalogue(items, "distance").rank(queries, 10)
    expected_items, expected_scores = brute_force(queries, items, 10, "distance")
    assert torch.equal(ranking.items, expected_items)
    torch.testing.assert_close(ranking.scores, expected_scores)


def test_an_item_asked_for_by_itself_is_at_distance_zero():
    items = embeddings(0, 50) + 100
    ranking = Catalogue(items, "distance").rank(items, 1)
    assert torch.equal(ranking.items[:, 0], torch.arange(50))
    assert ranking.scores.abs().max() == 0


@pytest.mark.parametrize("block", BLOCKS)
def test_excluded_items_are_left_out(block):
    items, queries = embeddings(0, 60), embeddings(1, 4)
    excluded = torch.tensor([[0, 1, 60], [5, 60, 60], [60, 60, 60], [58, 59, 7]])
    ranking = Catalogue(items, "cosine", block).rank(queries, 57, excluded)
    assert torch.equal(ranking.items, brute_force(queries, items, 57, "cosine", excluded)[0])


def test_score_of_the_true_item():
    items, queries, targets = embeddings(0, 30), embeddings(1, 5), torch.tensor([3, 0, 29, 3, 7])
    expected = (queries.double() - items[targets].double()).norm(dim=1).float()
    torch.testing.assert_close(Catalogue(items, "distance").scores(queries, targets), expected)
    cosine = functional.cosine_similarity(queries, items[targets])
    torch.testing.assert_close(Catalogue(items, "cosine").scores(queries, targets), cosine)


def test_no_queries():
    ranking = Catalogue(embeddings(0, 30), "distance").rank(torch.empty(0, 16), 5)
    assert ranking.items.shape == ranking.scores.shape == (0, 5)
