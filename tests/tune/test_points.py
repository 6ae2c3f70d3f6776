"""What a search proposes, without Ray."""

from contextlib import closing
from pathlib import Path

import optuna
import pytest

from cluster.errors import ConfigError
from student_train.config import TrainConfig
from tests.tune.records import record
from tune.config import Domain, SearchConfig, TuneConfig
from tune.journal import Journal
from tune.points import Points, starting_points, total

LAM = {"distillation.lam": Domain(low=0.0, high=1.0)}
MODELS = {"model.name": Domain(values=("sasrec", "gru4rec")), "batch_size": Domain(low=1, high=3, integer=True)}


def config(space: dict[str, Domain], **settings: object) -> TuneConfig:
    algorithm = settings.pop("algorithm", "random")
    return TuneConfig(search=SearchConfig(space=space, algorithm=algorithm), **settings)


def searcher(where: Path, asked: TuneConfig) -> Points:
    journal = Journal(where, "tune", {})
    if "starts" not in journal.notes:
        journal.note(starts=starting_points(asked, asked.train, asked.search.space))
    return Points(asked, asked.train, asked.search.space, journal)


def drawn(points: Points, most: int = 100) -> list[dict]:
    """What it proposes until it has nothing more to propose."""
    found = []
    while len(found) < most and (trial := points.suggest(f"id {len(found)}")) != Points.FINISHED:
        found.append(trial)
    return found


@pytest.mark.parametrize("algorithm", ["random", "optuna"])
def test_the_train_sections_own_point_is_first_and_no_point_comes_twice(tmp_path, algorithm):
    found = drawn(searcher(tmp_path, config(MODELS, algorithm=algorithm, trials=40, train={"batch_size": 2})))
    assert found[0]["point"] == {"model.name": "sasrec", "batch_size": 2}
    assert len({tuple(trial["point"].values()) for trial in found}) == len(found) == 6
    assert [trial["number"] for trial in found] == list(range(6))


def test_a_grid_is_tried_in_turn(tmp_path):
    space = {"model.name": Domain(values=("sasrec", "hstu")), "batch_size": Domain(values=(1, 2))}
    asked = config(space, algorithm="grid")
    found = [tuple(trial["point"].values()) for trial in drawn(searcher(tmp_path, asked))]
    assert found == [("sasrec", 1), ("sasrec", 2), ("hstu", 1), ("hstu", 2)]
    assert total(asked.model_copy(update={"trials": 3}), TrainConfig(), space) == 3


def test_points_that_differ_where_it_has_no_effect_are_one(tmp_path):
    space = {
        "distillation.strategy": Domain(values=("soft", "rd")),
        "distillation.temperature": Domain(values=(0.1, 0.2)),
    }
    found = [tuple(trial["point"].values()) for trial in drawn(searcher(tmp_path, config(space, algorithm="grid")))]
    assert found == [("soft", 0.1), ("soft", 0.2), ("rd", 0.1)]


def test_after_a_kill_open_trials_come_first_and_ended_ones_never(tmp_path):
    asked = config(LAM, trials=5)
    points = searcher(tmp_path, asked)
    before = drawn(points, most=4)
    journal = points._journal
    journal.append(record(0, 0.3, point=before[0]["point"]))
    journal.append(record(2, point=before[2]["point"]))
    journal.append(record(3, 0.1, point=before[3]["point"], state="running", checkpoint="kept"))
    journal.close()
    after = drawn(searcher(tmp_path, asked))
    assert [(trial["number"], trial["checkpoint"]) for trial in after] == [(1, None), (3, "kept"), (4, None)]
    assert [trial["point"] for trial in after[:2]] == [before[1]["point"], before[3]["point"]]
    assert after[2]["point"] not in [trial["point"] for trial in before]


def test_optuna_knows_what_ended_and_what_failed(tmp_path):
    points = searcher(tmp_path, config(LAM, algorithm="optuna", trials=3))
    for name, result in (("a", {"ndcg@20": 0.4}), ("b", {"failed": "loss is nan"}), ("c", None)):
        points.suggest(name)
        points.on_trial_complete(name, result)
    states = [(trial.state.name, trial.values) for trial in points._ot_study.trials]
    assert states == [("COMPLETE", [0.4]), ("FAIL", None), ("FAIL", None)]
    assert isinstance(points._ot_study.sampler, optuna.samplers.TPESampler)
    points._journal.append(record(0, 0.4, point={"distillation.lam": 0.5}))
    points._journal.close()
    again = searcher(tmp_path, config(LAM, algorithm="optuna", trials=3))
    assert [trial.values for trial in again._ot_study.get_trials(states=[optuna.trial.TrialState.COMPLETE])] == [[0.4]]


def test_a_search_learns_from_trials_that_end(tmp_path):
    """Points near the best one become more frequent than at random."""
    points = searcher(tmp_path, config(LAM, algorithm="optuna", trials=60))
    for number in range(60):
        lam = points.suggest(f"{number}")["point"]["distillation.lam"]
        points.on_trial_complete(f"{number}", {"ndcg@20": 1 - abs(lam - 0.8)})
    late = [trial.params["distillation.lam"] for trial in points._ot_study.trials[30:]]
    assert sum(abs(lam - 0.8) < 0.1 for lam in late) > 15


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    with closing(Journal(tmp_path / "earlier", "tune", {})) as journal:
        for number in range(8):
            journal.append(record(number, 0.1 * number, point={"distillation.lam": 0.2 * number}))
        journal.append(record(8))
    return tmp_path / "earlier"


def test_a_search_starts_from_the_best_points_of_an_earlier_one_and_says_what_lies_outside(earlier, capsys):
    space = LAM | {"learning_rate": Domain(low=1e-3, high=1e-2)}
    asked = config(space, start_from=earlier, train={"learning_rate": 5e-3, "distillation": {"lam": 0.5}})
    found = starting_points(asked, asked.train, space)
    assert [round(point["distillation.lam"], 1) for point in found] == [0.5, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert {point["learning_rate"] for point in found} == {5e-3}
    said = capsys.readouterr().out
    assert "2 of its 8 points lie outside this search's space; the best 5 of the others come first" in said


@pytest.mark.parametrize(
    ("space", "message"),
    [({"learning_rate": Domain(low=0.1, high=0.2)}, "8 of its 8 points lie outside this search's space")],
)
def test_an_earlier_search_without_a_point_to_start_from_is_refused(earlier, space, message):
    asked = config(space, start_from=earlier)
    with pytest.raises(ConfigError, match=message):
        starting_points(asked, asked.train, space)
    with pytest.raises(ConfigError, match="holds no search"):
        starting_points(asked.model_copy(update={"start_from": earlier.parent}), asked.train, space)
