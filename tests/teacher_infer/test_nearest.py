from itertools import accumulate

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from cluster.errors import ConfigError, DataError
from data_prep.schema import EMBEDDINGS_TENSOR
from teacher_infer.nearest import MEMORY, Catalogue, read_items

LITTLE = 256 << 10  # blocks of 128 items of width 16
MEMORIES = [MEMORY, LITTLE]


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


def uneven(seed, rows):
    """Clusters in directions of very different spread, with a few points far from all."""
    generator = torch.Generator().manual_seed(seed)
    points = embeddings(seed, rows) * 0.01 + embeddings(7, 30)[torch.randint(30, (rows,), generator=generator)]
    points[:3] *= 1000
    return points * torch.logspace(-2, 2, points.shape[1]) + 50


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("kind", ["distance", "cosine"])
@pytest.mark.parametrize("points", [embeddings, uneven])
def test_equals_brute_force(points, kind, memory):
    items, queries = points(0, 5000), points(1, 20)
    ranking = Catalogue(items, kind, memory).rank(queries, 20)
    expected_items, expected_scores = brute_force(queries, items, 20, kind)
    if kind == "distance" or points is embeddings:
        assert torch.equal(ranking.items, expected_items)
    torch.testing.assert_close(ranking.scores, expected_scores)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("copies", [40, 500, 2000])
def test_ties_go_to_the_lower_index_however_many(copies, memory):
    items = embeddings(0, 6)[torch.arange(6 * copies) % 6]
    queries = items[:3] + 0.1
    ranking = Catalogue(items, "distance", memory).rank(queries, 50)
    assert torch.equal(ranking.items, brute_force(queries, items, 50, "distance")[0])


@pytest.mark.parametrize("memory", MEMORIES)
def test_thousands_of_different_items_at_one_distance(memory):
    signs = torch.arange(5000)[:, None] >> torch.arange(16) & 1
    items = signs.flip(0) * 2.0 - 1
    ranking = Catalogue(items, "distance", memory).rank(torch.zeros(2, 16), 20, torch.tensor([[3], [5000]]))
    assert ranking.items.tolist() == [[*range(3), *range(4, 21)], [*range(20)]]
    assert (ranking.scores == 4).all()


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


def test_items_all_alike():
    ranking = Catalogue(torch.ones(3000, 16), "distance").rank(torch.zeros(2, 16), 3)
    assert ranking.items.tolist() == [[0, 1, 2]] * 2
    assert ranking.scores.tolist() == [[4.0] * 3] * 2


def test_excluded_copies_make_room_for_later_ones():
    items = torch.cat([torch.ones(3000, 16), torch.zeros(3000, 16)])
    excluded = torch.tensor([[0, 2, 6000], [6000, 6000, 6000], [1, 3, 3000]])
    ranking = Catalogue(items, "distance").rank(torch.ones(3, 16), 3, excluded)
    assert ranking.items.tolist() == [[1, 3, 4], [0, 1, 2], [0, 2, 4]]


@pytest.mark.parametrize("memory", MEMORIES)
def test_excluded_items_are_left_out(memory):
    items, queries = embeddings(0, 5000), embeddings(1, 4)
    first = brute_force(queries, items, 3, "cosine")[0]
    padding = torch.full((4, 2), 5000)
    padding[0, 1] = 4999
    excluded = torch.cat([first, padding], 1)
    ranking = Catalogue(items, "cosine", memory).rank(queries, 20, excluded)
    assert torch.equal(ranking.items, brute_force(queries, items, 20, "cosine", excluded)[0])


def test_all_items_but_the_excluded():
    items, queries = embeddings(0, 60), embeddings(1, 4)
    excluded = torch.tensor([[0, 1, 60], [5, 60, 60], [60, 60, 60], [58, 59, 7]])
    ranking = Catalogue(items, "cosine").rank(queries, 57, excluded)
    assert torch.equal(ranking.items, brute_force(queries, items, 57, "cosine", excluded)[0])


@pytest.mark.parametrize("kind", ["distance", "cosine"])
def test_a_row_alone_gets_the_same_bytes(kind):
    items, queries = torch.cat([uneven(0, 2500), uneven(0, 2500)]), uneven(1, 8)
    together = Catalogue(items, kind).rank(queries, 20)
    catalogue = Catalogue(items, kind, LITTLE)
    for row in range(8):
        alone = catalogue.rank(queries[row : row + 1], 20)
        assert torch.equal(alone.items[0], together.items[row])
        assert torch.equal(alone.scores[0], together.scores[row])
    assert torch.equal(catalogue.scores(queries, together.items[:, 7]), together.scores[:, 7])


def test_score_of_the_true_item():
    items, queries, targets = embeddings(0, 30), embeddings(1, 5), torch.tensor([3, 0, 29, 3, 7])
    expected = (queries.double() - items[targets].double()).norm(dim=1).float()
    torch.testing.assert_close(Catalogue(items, "distance").scores(queries, targets), expected)
    cosine = functional.cosine_similarity(queries, items[targets])
    torch.testing.assert_close(Catalogue(items, "cosine").scores(queries, targets), cosine)


def test_no_queries():
    ranking = Catalogue(embeddings(0, 30), "distance").rank(torch.empty(0, 16), 5)
    assert ranking.items.shape == ranking.scores.shape == (0, 5)


def crowded(seed, items=4000, width=16):
    """Titles that the catalogue holds many times, some up to a bit or two: copies and near copies in any order."""
    generator = torch.Generator().manual_seed(seed)
    titles = torch.randn(items // 40, width, generator=generator)
    copies = titles[torch.randint(len(titles), (items,), generator=generator)]
    nudged = torch.rand(items, generator=generator) < 0.5
    copies[nudged] *= 1 + 2e-7 * torch.randint(-1, 2, (int(nudged.sum()), width), generator=generator)
    return copies


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("kind", ["distance", "cosine"])
def test_copies_and_near_copies_are_told_apart(kind, memory):
    items = crowded(0)
    queries = torch.cat([items[:40], items[40:80] + 0.1 * embeddings(1, 40)])
    excluded = torch.arange(80)[:, None] // 2
    catalogue = Catalogue(items, kind, memory)
    ranking = catalogue.rank(queries, 20, excluded)
    numbers_P = torch.arange(len(items)).repeat(80)
    scores_QN = catalogue.scores(queries.repeat_interleave(len(items), 0), numbers_P).view(80, -1)
    scores_QN.scatter_(1, excluded, -torch.inf if kind == "cosine" else torch.inf)
    assert torch.equal(ranking.scores, scores_QN.sort(1, descending=kind == "cosine").values[:, :20])
    if kind == "distance":
        assert torch.equal(ranking.items, brute_force(queries, items, 20, kind, excluded)[0])


def test_an_item_within_rounding_of_the_last_place_is_not_missed():
    # Products of float32 order these wrongly: the squares hold 1e8, the distances differ in the seventh digit.
    items = torch.cat([torch.full((2000, 1), 1e4), 1 + 1e-6 * torch.randperm(2000)[:, None]], 1)
    items[:1000, 0] *= -1
    queries = torch.tensor([[1e4, 1.0], [-1e4, 1.0]])
    ranking = Catalogue(items, "distance").rank(queries, 20)
    assert torch.equal(ranking.items, brute_force(queries, items, 20, "distance")[0])


def test_fewer_items_than_asked_for_is_refused():
    with pytest.raises(ValueError, match="fewer than 29 items"):
        Catalogue(embeddings(0, 30), "distance").rank(embeddings(1, 2), 29, torch.tensor([[30, 30], [3, 7]]))


def file_of(tmp_path, items):
    save_file({EMBEDDINGS_TENSOR: items}, tmp_path / "items.safetensors")
    return tmp_path / "items.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_is_ranked_like_memory(dtype, tmp_path):
    items, queries = embeddings(0, 5000).to(dtype), embeddings(1, 20)
    of_file = Catalogue(read_items(file_of(tmp_path, items)), "distance", LITTLE).rank(queries, 20)
    in_memory = Catalogue(items, "distance").rank(queries, 20)
    assert torch.equal(of_file.items, in_memory.items)
    assert torch.equal(of_file.scores, in_memory.scores)


@pytest.mark.parametrize("crowd", [False, True])
@pytest.mark.parametrize("kind", ["distance", "cosine"])
def test_a_catalogue_larger_than_the_memory(kind, crowd, tmp_path):
    # The embeddings take 128 MiB, their distances to the queries 16 MiB.
    memory = 16 << 20
    items = embeddings(0, 32768, 1024)
    items[: 5000 * crowd] = 0
    items, queries = read_items(file_of(tmp_path, items)), embeddings(1, 128, 1024)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        Catalogue(items, kind, memory).rank(queries[: 1 if crowd else 128] * (0.01 if crowd else 1), 20)
    changes = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert max(accumulate(changes)) < memory


def test_too_little_memory_is_refused():
    with pytest.raises(ConfigError, match="at least 8192"):
        Catalogue(embeddings(0, 30), "distance", memory=8000)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_embeddings_that_are_not_finite_are_refused(value):
    items = embeddings(0, 30)
    broken = items.clone()
    broken[3, 5] = value
    with pytest.raises(DataError, match="not finite"):
        Catalogue(broken, "distance")
    with pytest.raises(ValueError, match="not finite"):
        Catalogue(items, "distance").rank(broken, 5)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="no item embeddings"):
        read_items(tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="no item embeddings"):
        read_items(tmp_path / "broken.safetensors")
    file = file_of(tmp_path, embeddings(0, 30))
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DataError, match="no item embeddings"):
        read_items(file)
