import random

import pytest

from tests.tune.records import record
from tune.config import Domain, PbtConfig, SearchConfig, TuneConfig
from tune.journal import Record
from tune.proposals import Proposal, medians, proposals

SPACE = {"lam": Domain(low=0.1, high=2.0), "student": Domain(values=("sasrec", "gru4rec"))}
START = {"lam": 0.6, "student": "sasrec"}


def config(**settings: object) -> TuneConfig:
    search = {name: settings.pop(name) for name in ("algorithm", "scheduler", "objectives") if name in settings}
    return TuneConfig(search=SearchConfig(**search), **settings)


def answer(proposal: Proposal) -> Record:
    """A made-up training that likes λ near 1; sizes differ by student."""
    ndcg = 1 - abs(float(proposal.point["lam"]) - 1) + proposal.seed / 100
    measures = {"size": 100.0 if proposal.point["student"] == "sasrec" else 50.0}
    fields = {"seed": proposal.seed, "parent": proposal.parent, "measures": measures}
    return record(proposal.number, ndcg / 2, ndcg, point=proposal.point, **fields)


def run(config: TuneConfig, space: dict[str, Domain] = SPACE, shuffle: int = 0) -> list[Proposal]:
    """Every proposal of a search whose trials end in an order of chance, as early as it allows."""
    planned, draw = proposals(config, space, [START]), random.Random(shuffle)
    made: list[Proposal] = []
    running: list[Proposal] = []
    ended: dict[int, Record] = {}
    while len(ended) < planned.total:
        number = len(made)
        known = planned.known(number) if number < planned.total else None
        if known is not None and all(at in ended for at in range(known)):
            made.append(planned.propose(number, [ended[at] for at in range(known)]))
            running.append(made[-1])
        else:
            done = running.pop(draw.randrange(len(running)))
            ended[done.number] = answer(done)
    return made


@pytest.mark.parametrize("algorithm", ["random", "optuna"])
def test_whoever_comes_in_first_the_proposals_are_the_same(algorithm):
    settings = config(algorithm=algorithm, trials=20, seeds=2, concurrent=5)
    first = run(settings)
    assert first == run(settings, shuffle=1) == run(settings, shuffle=2)
    assert len(first) == 40
    assert [proposal.seed for proposal in first[:4]] == [0, 1, 0, 1]
    assert first[0].point == first[1].point == START
    assert len({str(proposal.point) for proposal in first}) == 20


def test_more_trials_begin_with_the_same_ones():
    assert run(config(algorithm="optuna", trials=25))[:15] == run(config(algorithm="optuna", trials=15))


def test_other_seeds_propose_other_points():
    assert run(config(trials=4))[1:] != run(config(trials=4, seed=1))[1:]


def test_optuna_learns_from_what_ended():
    def late(algorithm: str) -> float:
        made = run(config(algorithm=algorithm, trials=40, concurrent=2))[30:]
        return sum(abs(float(proposal.point["lam"]) - 1) for proposal in made)

    assert late("optuna") < 0.8 * late("random")


def test_two_objectives_are_looked_for_together():
    made = run(config(algorithm="optuna", trials=40, objectives=("ndcg@20", "size")))
    assert sum(proposal.point["student"] == "gru4rec" for proposal in made[30:]) > 5


def test_a_point_that_failed_is_no_obstacle():
    planned = proposals(config(algorithm="optuna", trials=3, concurrent=1), SPACE, [START])
    first = planned.propose(0, [])
    failed = record(0, point=first.point)
    assert planned.propose(1, [failed]).point != first.point


def test_a_grid_is_gone_through_in_order():
    space = {"student": Domain(values=("sasrec", "gru4rec")), "lam": Domain(values=(0.1, 0.2))}
    made = run(config(algorithm="grid"), space)
    assert [tuple(proposal.point.values()) for proposal in made] == [
        ("sasrec", 0.1),
        ("sasrec", 0.2),
        ("gru4rec", 0.1),
        ("gru4rec", 0.2),
    ]
    assert run(config(algorithm="grid", trials=3), space) == made[:3]


def test_medians_need_every_seed():
    assert medians([record(0, 0.1), record(1, 0.9), record(2, 0.2)], ("ndcg@20",)) == [0.2]
    assert medians([record(0, 0.1), record(1)], ("ndcg@20",)) is None


class TestPopulation:
    SETTINGS = config(scheduler="pbt", trials=8, pbt=PbtConfig(rounds=3, epochs=2))

    def test_a_weak_member_takes_over_a_strong_ones_weights_and_moves_its_values(self):
        made = run(self.SETTINGS)
        ranked = sorted(made[:8], key=lambda proposal: answer(proposal).best("ndcg@20"))
        weak, strong = ({proposal.number for proposal in some} for some in (ranked[:2], ranked[-2:]))
        points = {proposal.number: proposal.point for proposal in made}
        for proposal in made[8:16]:
            own = proposal.number - 8
            if own in weak:
                assert proposal.parent in strong
                assert proposal.point["lam"] != points[proposal.parent]["lam"]
                assert SPACE["lam"].holds(proposal.point["lam"])
            else:
                assert proposal.parent == own
                assert proposal.point == points[own]

    def test_rounds_train_on_from_the_one_before(self):
        made = run(self.SETTINGS)
        assert [proposal.settings["epochs"] for proposal in made] == [2] * 8 + [4] * 8 + [6] * 8
        assert all(proposal.parent is None for proposal in made[:8])
        assert made == run(self.SETTINGS, shuffle=1)

    def test_a_member_that_failed_is_replaced(self):
        planned = proposals(self.SETTINGS, SPACE, [START])
        born = [planned.propose(number, []) for number in range(8)]
        before = [record(0, point=born[0].point), *(answer(proposal) for proposal in born[1:])]
        assert planned.propose(8, before).parent not in (None, 0)


RATES = {"learning_rate": Domain(low=1e-4, high=1e-2)}
