"""Which trainings are grouped, and what keeps one alone."""

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError
from student_train.alike import check_alike, groups, obstacle
from student_train.config import TrainConfig

LABELS = Path("labels")


def config(**settings: Any) -> TrainConfig:
    return TrainConfig.model_validate({"labels": LABELS} | settings)


def distilled(**settings: Any) -> TrainConfig:
    return config(distillation=settings)


def test_weights_rates_and_seeds_do_not_part_members_but_shapes_do() -> None:
    found = groups(
        [
            config(),
            distilled(lam=0.1, ed_weight=3.0, temperature=1.0, trust=0.0, cloze=0.5),
            config(shape={"width": 32}),
            config(seed=3, learning_rate=1e-4, weight_decay=0.1, average=0.0, output=Path("elsewhere"), epochs=3),
            config(shape={"dropout": 0.0}),
            distilled(strategy="rd"),
        ]
    )
    assert found == [[0, 1, 3, 4], [2], [5]]


@pytest.mark.parametrize("name", ["lam", "ed_weight", "cloze", "gamma_consistency"])
def test_a_weight_of_zero_parts_members(name: str) -> None:
    assert groups([distilled(), distilled(**{name: 0.0})]) == [[0], [1]]


def test_without_labels_settings_of_the_distillation_part_nobody() -> None:
    assert groups([config(labels=None), config(labels=None, distillation={"strategy": "rd", "lam": 0})]) == [[0, 1]]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"distillation": {"strategy": "htd"}}, "`distillation.strategy` = htd"),
        ({"student": "gru4rec", "shape": {"layers": 2}}, "`model.num_layers` = 2"),
        ({"engine": {"precision": "bf16"}}, "`engine.precision` = bf16"),
        ({"engine": {"accumulation": 2}}, "`engine.accumulation` = 2"),
        ({"workers": {"count": 2}}, "`workers.count` = 2"),
    ],
)
def test_what_must_train_alone_is_named(settings: dict[str, Any], named: str) -> None:
    assert obstacle(config(**settings)) == named
    assert groups([config(**settings)] * 2) == [[0], [1]]
    with pytest.raises(ConfigError, match="cannot train together"):
        check_alike([config(**settings)])
    assert obstacle(config()) is None


def test_members_that_differ_are_refused_by_the_field() -> None:
    with pytest.raises(ConfigError, match=r"`distillation\.lam > 0` is True for one member and False for another"):
        check_alike([config(), distilled(lam=0)])
