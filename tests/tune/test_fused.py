"""Brackets that train as one stacked model, against separate trainings with a real engine."""

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest

from cluster.config import ResourcesConfig
from cluster.errors import UserError
from student_train.config import LossConfig, ModelConfig, TrainConfig
from student_train.loop import fit
from student_train.worker import load_data
from tests.tune.records import record
from tests.tune.test_points import config as search_config
from tests.tune.test_points import drawn, searcher
from tune.config import Domain
from tune.fused import Bracket
from tune.journal import Record
from tune.points import Brackets
from tune.trial import Plan


def train(dataset: Path, labels: Path | None, **changes: object) -> TrainConfig:
    model = ModelConfig(hidden_size=16, num_heads=2, num_layers=1, max_length=5, dropout=0.1)
    settings = {"model": model, "learning_rate": 0.01, "batch_size": 32, "epochs": 5}
    return TrainConfig(**{"dataset": dataset, "labels": labels} | settings | changes)


def bracket(config: TrainConfig, *points: dict, checkpoint: Path | None = None, **plan: object) -> Bracket:
    members = [{"number": number, "point": point} for number, point in enumerate(points)]
    common = Plan(train=config.model_dump(mode="json"), resources=ResourcesConfig(), **plan)
    return Bracket(common, members, checkpoint)


def step(one: Bracket) -> dict[int, Record]:
    return {found.number: found for found in map(Record.model_validate_json, one.step()["records"])}


def ended(one: Bracket) -> dict[int, Record]:
    found: dict[int, Record] = {}
    while one.points:
        found |= step(one)
    return found


@pytest.mark.engine
@pytest.mark.parametrize(("name", "loss"), [("sasrec", "softmax"), ("hstu", "bce")])
def test_members_end_as_separate_trainings_do_in_distribution(
    dataset: Path, labels: Path, name: str, loss: str
) -> None:
    config = train(dataset, labels, loss=LossConfig(name=loss))
    config = config.model_copy(update={"model": config.model.model_copy(update={"name": name})})
    (found,) = ended(bracket(config, {}, seeds=8)).values()
    fused = [max(at["ndcg@20"] for at in history) for history in found.histories.values()]
    data = load_data(config)
    alone = [
        fit(config.model_copy(update={"seed": seed}), data, lambda *_: True)[1].best["ndcg@20"] for seed in range(8)
    ]
    assert abs(fmean(fused) - fmean(alone)) < 2 * max(stdev(fused), stdev(alone))
    assert len(set(fused)) == 8


@pytest.mark.engine
def test_every_member_has_its_own_rate_and_the_worst_are_halved_away(dataset: Path) -> None:
    points = [{"learning_rate": rate} for rate in (1e-7, 1e-2, 1e-6, 2e-2)]
    one = bracket(train(dataset, None), *points, decisions=(2,), reduction=2.0)
    assert {found.state for found in step(one).values()} == {"running"}
    second = step(one)
    assert [second[number].state for number in range(4)] == ["stopped early", "running", "stopped early", "running"]
    last = ended(one)
    assert {number: (found.state, found.epoch) for number, found in last.items()} == {
        1: ("complete", 5),
        3: ("complete", 5),
    }
    assert last[1].best("ndcg@20") > 2 * second[0].best("ndcg@20")


@pytest.mark.engine
def test_a_bracket_resumes_without_the_members_that_ended_since(dataset: Path, labels: Path, tmp_path: Path) -> None:
    points = [{"distillation.lam": lam} for lam in (0.2, 0.6, 1.0)]
    one = bracket(train(dataset, labels, epochs=3), *points, seeds=2)
    step(one)
    one.save(tmp_path)
    again = bracket(train(dataset, labels, epochs=3), *points, seeds=2, checkpoint=tmp_path)
    assert step(again)[1].histories == step(one)[1].histories
    fewer = Bracket(again.plan, [{"number": 2, "point": points[2]}], tmp_path)
    (found,) = step(fewer).values()
    assert (found.number, found.epoch, len(found.histories)) == (2, 2, 2)


@pytest.mark.engine
def test_a_member_that_is_not_finite_fails_and_the_others_go_on(dataset: Path) -> None:
    last = ended(bracket(train(dataset, None, epochs=2), {"learning_rate": 1e30}, {"learning_rate": 1e-2}))
    assert (last[0].state, last[1].state) == ("failed", "complete")
    assert "loss is" in last[0].reason


@pytest.mark.engine
def test_what_has_no_batching_rule_is_refused_with_one_line(dataset: Path) -> None:
    model = train(dataset, None).model.model_copy(update={"name": "dros"})
    with pytest.raises(UserError, match=r"dros with softmax and soft cannot be fused .*: set `fused` to 1"):
        bracket(train(dataset, None, model=model), {}).step()


def test_proposals_that_train_alike_come_together(tmp_path: Path) -> None:
    space = {"model.hidden_size": Domain(values=(16, 32)), "learning_rate": Domain(low=1e-3, high=1e-2)}
    asked = search_config(space, trials=12)
    points = searcher(tmp_path, asked)
    found = drawn(Brackets(points, asked.train, points._journal, 4))
    assert sorted(member["number"] for one in found for member in one["members"]) == list(range(12))
    for one in found:
        assert len({member["point"]["model.hidden_size"] for member in one["members"]}) == 1
    assert len(found) < 8


def test_optuna_gets_the_figures_of_every_member(tmp_path: Path) -> None:
    asked = search_config({"learning_rate": Domain(low=1e-3, high=1e-2)}, algorithm="optuna", trials=3)
    points = searcher(tmp_path, asked)
    brackets = Brackets(points, asked.train, points._journal, 3)
    (one,) = drawn(brackets, most=1)
    points._journal.append(record(0, 0.4, point=one["members"][0]["point"]))
    points._journal.append(record(1, point=one["members"][1]["point"], reason="loss is nan"))
    brackets.on_trial_complete("id 0", {})
    assert [trial.state.name for trial in points._ot_study.trials] == ["COMPLETE", "FAIL", "FAIL"]
    assert json.dumps(one)
