from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.errors import ConfigError
from student_train.config import TrainConfig, value_at
from tune.config import Domain, SearchConfig, TuneConfig
from tune.space import check_space, grid, identity, point_config, space_of

POINT = {"distillation.lam": 0.7, "model.dropout": 0.1, "learning_rate": 0.01, "model.name": "gru4rec", "seed": 5}


def checked(dataset: Path, labels: Path | None, space: dict[str, str], **search: object) -> dict[str, Domain]:
    domains = {path: Domain.model_validate(text) for path, text in space.items()}
    train = TrainConfig(dataset=dataset, labels=labels)
    return check_space(TuneConfig(search=SearchConfig(space=domains, **search), train=train), train)


def test_a_point_changes_its_fields_and_nothing_else():
    base = TrainConfig(batch_size=64)
    config = point_config(base, POINT)
    assert (config.distillation.lam, config.model.dropout) == (0.7, 0.1)
    assert (config.learning_rate, config.model.name, config.seed) == (0.01, "gru4rec", 5)
    own = {path: value_at(base, path) for path in POINT}
    assert point_config(config, own) == base


def test_a_value_that_training_refuses_is_refused():
    with pytest.raises(ValidationError, match="learning_rate"):
        point_config(TrainConfig(), {"learning_rate": 0.0})


def test_a_search_varies_what_has_an_effect():
    labels = {"train": {"labels": "somewhere"}}
    assert set(space_of(TuneConfig())) == {"learning_rate"}
    soft = {"distillation.lam", "distillation.ed_weight", "learning_rate", "distillation.temperature"}
    assert set(space_of(TuneConfig.model_validate(labels))) == soft
    labels["train"]["distillation"] = {"strategy": "dllm2rec"}
    assert "distillation.gamma_confidence" in space_of(TuneConfig.model_validate(labels))


def test_default_spaces_pass_their_own_check(dataset, labels):
    for strategy in ("soft", "dllm2rec", "rrd"):
        train = TrainConfig.model_validate(
            {"dataset": dataset, "labels": labels, "distillation": {"strategy": strategy}}
        )
        assert check_space(TuneConfig(train=train), train)


def test_points_are_the_same_where_they_differ_in_what_has_no_effect():
    base, soft = TrainConfig(), {"distillation.strategy": "soft", "distillation.temperature": 0.1}
    assert identity(base, soft) != identity(base, soft | {"distillation.temperature": 0.2})
    rd = soft | {"distillation.strategy": "rd"}
    assert identity(base, rd) == identity(base, rd | {"distillation.temperature": 0.2})
    assert identity(base, {"batch_size": 2}) == identity(base, {"batch_size": 2.0})
    assert identity(base, {"batch_size": 0}) != identity(base, {"batch_size": -1})


def test_a_grid_holds_every_point_once():
    space = {"student": Domain(values=("sasrec", "hstu")), "batch_size": Domain(values=(1, 2, 3))}
    points = list(grid(space))
    assert len({tuple(point.values()) for point in points}) == len(points) == 6
    assert points[:2] == [{"student": "sasrec", "batch_size": 1}, {"student": "sasrec", "batch_size": 2}]


@pytest.mark.parametrize(
    ("space", "search", "message"),
    [
        ({"distillation.lamb": "0..1"}, {}, r"names distillation\.lamb, .*: perhaps distillation\.lam$"),
        ({"dropout": "0..0.5"}, {}, r"names dropout, which is no field of `train`: perhaps model\.dropout$"),
        ({"model": "1,2"}, {}, "names model, which is no field of `train`"),
        ({"seed": "0,1,2"}, {}, "names seed, which cannot be searched: give --seeds"),
        ({"resources.workers": "1,2"}, {}, "names resources.workers, which cannot be searched: all trials ask"),
        ({"track": "true,false"}, {}, "names track, which cannot be searched: it changes no result"),
        ({"distillation.gamma_position": "0..1"}, {}, "has no effect with distillation.strategy soft"),
        ({"loss.negatives": "1..4:integer"}, {}, "has no effect with loss.name softmax"),
        ({"learning_rate": "0..1"}, {}, r"training refuses: `learning_rate` = 0"),
        ({"model.name": "sasrec,bert"}, {}, "training refuses: `model.name`: should be one of"),
        ({"model.num_heads": "2,3"}, {}, "training refuses: `model`: num_heads 3 must divide hidden_size 64"),
        ({"distillation.top_k": "20,30"}, {}, "`distillation.top_k` = 30, but .* holds lists of 20"),
        ({"learning_rate": "0.1..1"}, {"algorithm": "grid"}, "gives learning_rate a range, of which a grid has no end"),
        (
            {"model.hidden_size": "16,32"},
            {"scheduler": "pbt"},
            "names model.hidden_size, which weights that are handed on",
        ),
    ],
)
def test_a_space_that_does_not_fit_is_one_line(dataset, labels, space, search, message):
    with pytest.raises(ConfigError, match=message) as caught:
        checked(dataset, labels, space, **search)
    assert "\n" not in str(caught.value)


def test_weights_have_no_effect_without_a_teacher(dataset):
    with pytest.raises(ConfigError, match=r"names distillation\.lam, which has no effect without a teacher"):
        checked(dataset, None, {"distillation.lam": "0..1"})


def test_a_field_has_effect_where_what_decides_is_searched_too(dataset, labels):
    space = {"distillation.gamma_position": "0..1", "distillation.strategy": "soft,dllm2rec"}
    assert set(checked(dataset, labels, space)) == set(space)
