"""Which trials stop, without Ray's processes."""

import random
from contextlib import closing
from types import SimpleNamespace

import pytest

from tests.tune.records import history, record
from tune.config import AshaConfig, Domain
from tune.journal import Journal, Progress
from tune.schedulers import Halving, moved, stages

ASHA = AshaConfig(max_epochs=9, grace=1, reduction=3)


@pytest.fixture
def journal(tmp_path):
    with closing(Journal(tmp_path, "tune", {})) as made:
        yield made


def decisions(halving: Halving, number: int, *ndcg: float) -> list[str]:
    trial = SimpleNamespace(trial_id=f"id {number}", config={"number": number})
    halving.on_trial_add(None, trial)
    reports = [{"epoch": epoch, "ndcg@20": value} for epoch, value in enumerate(ndcg, 1)]
    return [halving.on_trial_result(None, trial, report) for report in reports]


def test_a_scheduler_that_begins_again_knows_what_the_one_before_it_knew(journal):
    values = [[0.5, 0.5, 0.6], [0.4], [0.7, 0.7, 0.7], [0.1], [0.6, 0.6, 0.7]]
    halving, decided = Halving(ASHA, "ndcg@20", journal), []
    for number, best in enumerate(values):
        journal.append(record(number, state="running"))
        decided.append(decisions(halving, number, *best)[0])
        journal.append(record(number, *best, state="running" if number == 4 else "complete"))
    assert decided == ["CONTINUE", "STOP", "CONTINUE", "STOP", "CONTINUE"]
    again = Halving(ASHA, "ndcg@20", journal)
    again.on_trial_add(None, SimpleNamespace(trial_id="id 4", config={"number": 4}))
    assert rungs(again) == rungs(halving) == [(9, []), (3, [0.6, 0.7, 0.7]), (1, [0.1, 0.4, 0.5, 0.6, 0.7])]
    journal.append(record(5, state="running"))
    assert decisions(again, 5, 0.3) == decisions(halving, 5, 0.3) == ["STOP"]


def rungs(halving: Halving) -> list[tuple[float, list[float]]]:
    return [(epoch, sorted(recorded.values())) for epoch, recorded in halving._brackets[0]._rungs]


def test_the_scheduler_leaves_starting_actors_to_their_trials(journal):
    assert Halving(ASHA, "ndcg@20", journal).choose_trial_to_run(None) is None


def test_a_trial_is_repeated_evaluation_by_evaluation():
    found = stages(Progress(histories={0: history(0.1, 0.3), 1: history(0.2)}))
    assert [(stage.epoch, round(stage.best("ndcg@20"), 3)) for stage in found] == [(1, 0.15), (2, 0.25)]


def test_values_move_within_their_domain_and_whole_numbers_by_at_least_one():
    space = {
        "count": Domain(low=1, high=3, integer=True),
        "rate": Domain(low=0.1, high=1.0, log=True),
        "kind": Domain(values=("a", "b", "c")),
        "only": Domain(values=("x",)),
    }
    random.seed(0)
    point = {"count": 1, "rate": 1.0, "kind": "b", "only": "x"}
    for _ in range(20):
        now = moved(point, space, resample=0)
        assert now == {"count": 2, "rate": 0.8, "kind": now["kind"], "only": "x"}
        assert now["kind"] in "ac"
    fresh = [moved(point, space, resample=1) for _ in range(50)]
    assert all(space[name].holds(value) for one in fresh for name, value in one.items())
    assert {one["count"] for one in fresh} == {1, 2, 3}
