from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from student_train.config import TrainConfig
from tests.tune.records import record
from tune.config import AshaConfig, Domain, SearchConfig, TuneConfig
from tune.halving import Rungs
from tune.journal import Journal
from tune.proposals import Proposal, proposals, split
from tune.searcher import OrderedSearcher

SPACE = {"learning_rate": Domain(low=1e-4, high=1e-2), "model.num_layers": Domain(values=(1, 2))}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path, {})
    yield made
    made.close()


def searcher(journal: Journal, trials: int = 10, together: int = 4, concurrent: int = 2) -> OrderedSearcher:
    config = TuneConfig(
        trials=trials, together=together, concurrent=concurrent, search=SearchConfig(algorithm="random")
    )
    rungs = Rungs(AshaConfig(max_epochs=4, grace=1), "ndcg@20")
    return OrderedSearcher(
        proposals(config, SPACE, []), journal, together, lambda batch: split(TrainConfig(), batch), rungs
    )


def numbers(members: Any) -> list[int]:
    return [proposal["number"] for proposal in members["members"]]


def end(journal: Journal, members: Any) -> None:
    for made in members["members"]:
        journal.append(record(made["number"], 0.1 * made["number"], point=made["point"], seed=made["seed"]))


def test_of_a_batch_those_of_one_shape_train_together(journal):
    asked = searcher(journal, trials=4)
    found = [asked.suggest("0"), asked.suggest("1")]
    assert sorted(numbers(found[0]) + numbers(found[1])) == [0, 1, 2, 3]
    assert all(len({made["point"]["model.num_layers"] for made in members["members"]}) == 1 for members in found)
    assert asked.suggest("2") == "FINISHED"


def test_the_next_batch_waits_for_those_that_it_may_know_and_has_their_bars(journal):
    asked = searcher(journal, together=2, concurrent=1, trials=6)
    begun = asked.suggest("0")
    while isinstance(begun, dict):
        last, begun = begun, asked.suggest("1")
        end(journal, last)
    assert sorted(journal.records) == [0, 1]
    following = asked.suggest("2")
    assert set(numbers(following)) <= {2, 3}
    assert [made["bars"] for made in following["members"]] == [{1: pytest.approx(0.1)}] * len(following["members"])


def test_what_the_journal_holds_is_not_run_again(journal):
    first = searcher(journal, trials=4)
    begun = first.suggest("0")
    end(journal, begun)
    left = searcher(journal, trials=4)
    found = []
    while isinstance(members := left.suggest("1"), dict):
        found += numbers(members)
    assert sorted(found + numbers(begun)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "refused", [{"learning_rate": -1.0}, {"model.hidden_size": 9}, {"distillation.embedding": "input"}]
)
def test_a_point_that_training_refuses_is_alone(refused):
    batch = [Proposal(0, {"learning_rate": 0.1}, 0), Proposal(1, refused, 0), Proposal(2, {"learning_rate": 0.2}, 0)]
    groups = split(TrainConfig(labels="labels"), batch)
    assert [[proposal.number for proposal in group] for group in groups] == [[0, 2], [1]]
