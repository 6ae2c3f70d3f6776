import pytest

from cluster.errors import OutputError
from student_train.config import TrainConfig
from tests.tune.records import record
from tune.config import AshaConfig, Domain, SearchConfig, TuneConfig
from tune.journal import Journal
from tune.opening import identity, open_journal
from tune.space import Space

SPACE: Space = {"learning_rate": Domain(low=0.1, high=0.2)}


def config(**settings: object) -> TuneConfig:
    return TuneConfig.model_validate(settings)


def name_of(one: TuneConfig, **inputs: str) -> dict[str, str]:
    return identity(one, SPACE, inputs or {"dataset": "f"})


@pytest.mark.parametrize(
    "change",
    [
        {"trials": 99},
        {"cpus_per_trial": 2},
        {"output": "elsewhere"},
        {"tracking": {"uri": "http://server:5000"}},
        {"train": {"dataset": "moved"}},
        {"train": {"workers": {"cpus": 2}}},
        {"pbt": {"rounds": 9}},
    ],
)
def test_what_does_not_change_results_leaves_a_search_the_same(change):
    assert name_of(config()) == name_of(config(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"seeds": 3},
        {"concurrent": 8},
        {"asha": {"grace": 2}},
        {"search": {"algorithm": "optuna"}},
        {"train": {"model": {"hidden_size": 32}}},
        {"train": {"workers": {"count": 2}}},
    ],
)
def test_what_changes_results_makes_another_search(change):
    assert name_of(config()) != name_of(config(**change))


def test_other_data_and_another_space_make_another_search():
    assert name_of(config(), dataset="f") != name_of(config(), dataset="g")
    assert name_of(config()) != identity(config(), {"learning_rate": Domain(low=0.1, high=0.3)}, {"dataset": "f"})


def test_trials_at_a_time_matter_only_to_what_learns():
    search = {"search": {"scheduler": "none"}}
    assert name_of(config(**search)) == name_of(config(**search, concurrent=9))


def test_pbt_trains_a_population_of_one_size():
    search = {"search": {"scheduler": "pbt"}}
    assert name_of(config(**search)) != name_of(config(**search, trials=9))


def opened(tmp_path, **settings: object) -> set[int]:
    one = TuneConfig(output=tmp_path / "search", search=SearchConfig(scheduler="asha"), **settings)
    journal = open_journal(one, TrainConfig(), SPACE, {})
    found = set(journal.records)
    if not found:
        journal.append(record(0, 0.1))
    journal.close()
    return found


def test_a_search_keeps_the_points_it_began_with(tmp_path):
    earlier = Journal(tmp_path / "search", {"of": "another time"})
    earlier.append(record(0, 0.5, point={"learning_rate": 0.15}))
    earlier.close()
    begun = config(output=tmp_path / "search", start_from=tmp_path / "search", overwrite=True)
    going_on = begun.model_copy(update={"overwrite": False})
    for one in (begun, going_on, going_on.model_copy(update={"start_from": tmp_path / "removed"})):
        journal = open_journal(one, TrainConfig(learning_rate=0.1), SPACE, {})
        journal.close()
        assert journal.starts == [{"learning_rate": 0.1}, {"learning_rate": 0.15}]
    with pytest.raises(OutputError, match="start_from was an earlier search, now it is nothing"):
        open_journal(going_on.model_copy(update={"start_from": None}), TrainConfig(), SPACE, {})


def test_a_search_that_runs_is_not_overwritten(tmp_path):
    running = open_journal(config(output=tmp_path / "search"), TrainConfig(), SPACE, {})
    (tmp_path / "search" / "student").mkdir()
    with pytest.raises(OutputError, match="another process is searching there"):
        open_journal(config(output=tmp_path / "search", overwrite=True), TrainConfig(), SPACE, {})
    assert (tmp_path / "search" / "student").is_dir()
    running.close()
    open_journal(config(output=tmp_path / "search", overwrite=True), TrainConfig(), SPACE, {}).close()
    assert {file.name for file in (tmp_path / "search").iterdir()} == {"search.json", "trials.jsonl"}


def test_a_search_goes_on_is_refused_or_begins_anew(tmp_path):
    assert opened(tmp_path) == set()
    assert opened(tmp_path, trials=50) == {0}
    with pytest.raises(
        OutputError, match=r"asha\.grace was 4, now it is 5; choose another --output or add --overwrite"
    ):
        opened(tmp_path, asha=AshaConfig(grace=5))
    assert opened(tmp_path, asha=AshaConfig(grace=5), overwrite=True) == set()
    assert opened(tmp_path, asha=AshaConfig(grace=5)) == {0}
