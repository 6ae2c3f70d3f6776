import json
import math

import mlflow
import pytest

from cluster.config import PromoteConfig, TrackingConfig
from cluster.errors import ModelError, OutputError
from cluster.promote import decide, promote
from cluster.registry import ModelVersion, Registry
from cluster.storage import read_manifest
from cluster.tracking import Tracker


def version(number: int, ndcg: str | None = "0.1", dataset: str = "a") -> ModelVersion:
    tags = {"fingerprint.dataset": dataset} | ({"validation_ndcg_at_20": ndcg} if ndcg is not None else {})
    return ModelVersion("m", number, tags)


def test_the_first_candidate_becomes_champion():
    decision = decide(version(1), None)
    assert decision.promoted
    assert decision.champion is None
    assert "promoted: m version 1 is the first champion" in decision.reason


def test_only_a_strictly_better_candidate_replaces_the_champion():
    assert decide(version(2, "0.1001"), version(1)).promoted
    assert not decide(version(2, "0.1"), version(1)).promoted
    assert not decide(version(2, "0.0999"), version(1)).promoted


def test_a_refusal_names_both_figures():
    assert decide(version(2, "0.05"), version(1)).reason == (
        "not promoted: m version 2 is not better: validation_ndcg@20 0.0500 against 0.1000 of champion version 1"
    )


def test_the_champion_itself_is_left_alone():
    decision = decide(version(1), version(1))
    assert not decision.promoted
    assert "is the champion already" in decision.reason


def test_figures_of_different_data_sets_are_compared_only_on_request():
    better = version(2, "0.9", dataset="b")
    decision = decide(better, version(1))
    assert not decision.promoted
    assert "another data set" in decision.reason
    assert "--across-datasets True" in decision.reason
    assert decide(better, version(1), across_datasets=True).promoted


@pytest.mark.parametrize("text", [None, "", "best", "nan", "inf"])
def test_a_version_without_a_usable_figure_is_an_error(text):
    with pytest.raises(ModelError, match="version 2 has no usable tag validation_ndcg_at_20"):
        decide(version(2, text), version(1))
    with pytest.raises(ModelError, match="version 1 has no usable tag"):
        decide(version(2), version(1, text))


@pytest.fixture(scope="module")
def tracking(new_store) -> TrackingConfig:
    return new_store()


def put(tracking: TrackingConfig, name: str, ndcg: float, dataset: str = "a") -> None:
    """A version in a real store with the tags that decide; its files play no part here."""
    tracker = Tracker(tracking)
    client = mlflow.MlflowClient(tracker.uri)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {"fingerprint.dataset": dataset, "validation_ndcg_at_20": repr(ndcg)}
    client.create_model_version(name, source="models/none", tags=tags)


@pytest.mark.engine
def test_the_alias_follows_the_best_version(tracking, tmp_path, capsys):
    config = PromoteConfig(name="student", tracking=tracking, output=tmp_path / "promotion")
    champions = []
    for ndcg in (0.2, 0.1, 0.2, 0.3):
        put(tracking, "student", ndcg)
        assert promote(config) == tmp_path / "promotion"
        champions.append(Registry(Tracker(tracking)).with_alias("student", "champion").version)
    assert champions == [1, 1, 1, 4]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["promoted", "not promoted", "not promoted", "promoted"]
    decision = json.loads((tmp_path / "promotion" / "decision.json").read_text())
    assert decision["promoted"] is True
    assert (decision["candidate"], decision["champion"]) == (4, 1)
    assert math.isclose(decision["champion_ndcg"], 0.2)
    manifest = read_manifest(tmp_path / "promotion", "promote")
    assert manifest.metrics == {"validation_ndcg@20": 0.3}


@pytest.mark.engine
def test_an_older_version_can_be_named(tracking, tmp_path):
    for ndcg in (0.1, 0.4, 0.2):
        put(tracking, "named", ndcg)
    promote(PromoteConfig(name="named", version=2, tracking=tracking, output=tmp_path / "promotion"))
    assert Registry(Tracker(tracking)).with_alias("named", "champion").version == 2


@pytest.mark.engine
def test_a_refused_output_leaves_the_alias_alone(tracking, tmp_path):
    put(tracking, "kept", 0.1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="did not make"):
        promote(PromoteConfig(name="kept", tracking=tracking, output=tmp_path / "notes"))
    assert Registry(Tracker(tracking)).with_alias("kept", "champion") is None
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"
