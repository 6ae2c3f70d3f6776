import pytest

from cluster.errors import ConfigError
from tests.tune.records import record
from tune.config import SearchConfig, TuneConfig
from tune.outcome import best_of, outcomes_of


def outcomes(*records, seeds=1, **search):
    return outcomes_of(records, TuneConfig(seeds=seeds, search=SearchConfig(**search)))


def test_the_best_point_has_the_largest_figure():
    best = best_of(outcomes(record(0, 0.1), record(1, 0.3, 0.2, point={"lam": 0.4}), record(2, 0.2)))
    assert (best.point, best.values) == ({"lam": 0.4}, [0.3])


def test_the_median_over_seeds_counts_not_the_luckiest_seed():
    lucky = [record(0, 0.9, point={"lam": 1}), record(1, 0.1, point={"lam": 1}), record(2, 0.2, point={"lam": 1})]
    steady = [record(3, 0.4, point={"lam": 2}), record(4, 0.3, point={"lam": 2}), record(5, 0.3, point={"lam": 2})]
    best = best_of(outcomes(*lucky, *steady, seeds=3))
    assert (best.point, best.values) == ({"lam": 2}, [0.3])


def test_a_point_with_a_failed_seed_is_passed_over_unless_all_have_one():
    broken = [record(0, 0.9, point={"lam": 1}), record(1, point={"lam": 1})]
    whole = [record(2, 0.5, point={"lam": 2}), record(3, 0.5, point={"lam": 2})]
    assert best_of(outcomes(*broken, *whole, seeds=2)).point == {"lam": 2}
    assert best_of(outcomes(*broken, seeds=2)).values == [0.9]


def test_the_front_holds_what_nothing_beats():
    sizes = [(0.1, 10), (0.3, 20), (0.2, 30), (0.3, 25)]
    records = [record(at, ndcg, measures={"size": size}) for at, (ndcg, size) in enumerate(sizes)]
    found = outcomes(*records, algorithm="optuna", objectives=("ndcg@20", "size"))
    assert [outcome.best_in_kind for outcome in found] == [True, True, False, False]
    assert best_of(found).values == [0.3, 20]


def test_all_failed_says_why():
    with pytest.raises(ConfigError, match="all 2 trials failed; the first one: loss is nan"):
        outcomes(record(0, reason="loss is nan"), record(1))
