"""Which trainings a comparison has, and which of them are done."""

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError
from student_train.config import ModelConfig, TrainConfig
from tune.compare import _open
from tune.compare_config import CompareConfig
from tune.compare_runs import Result, done, plan, save

STUDENTS = {"SASRec": {"model": {"name": "sasrec"}}, "DROS": {"model": {"name": "dros"}, "loss": {"name": "bce"}}}
STRATEGIES = {"soft": {}, "official": {"distillation": {"strategy": "dllm2rec-official", "ed_weight": 0.0}}}


def config(dataset: Path, labels: Path | None, **changes: Any) -> CompareConfig:
    model = ModelConfig(hidden_size=8, num_heads=1, num_layers=1, max_length=5)
    distillation = {"top_k": 5}
    train = {"dataset": dataset, "labels": labels, "model": model.model_dump(), "distillation": distillation}
    settings = {"students": STUDENTS, "strategies": STRATEGIES, "train": train}
    return CompareConfig.model_validate(settings | changes)


def test_every_student_runs_plain_and_with_every_strategy_and_seed(dataset: Path, labels: Path) -> None:
    runs, inputs = plan(config(dataset, labels, seeds=(3, 4)))
    assert len(runs) == 2 * 3 * 2
    assert set(inputs) == {"dataset", "labels", "teacher"}
    plain = next(run for run in runs if (run.student, run.strategy) == ("DROS", "plain"))
    assert (plain.config.distillation.lam, plain.embedding, plain.loss) == (0.0, "none", "bce+dro")
    official = next(run for run in runs if run.strategy == "official")
    assert (official.embedding, official.loss, official.config.distillation.top_k) == ("none", "softmax", 5)
    assert {run.seed for run in runs} == {3, 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": {"soft": {"distillation": {"strategie": "soft"}}}}, "unknown key `distillation.strategie`"),
        ({"strategies": {"soft": {"distillation": {"lam": -1}}}}, "compare, SASRec, soft: `distillation.lam` = -1"),
        ({"strategies": {"long": {"distillation": {"top_k": 21}}}}, "holds lists of 20"),
        ({"strategies": {"one": {"distillation": {"embedding": "input"}}}}, "set `model.output` to separate"),
        ({"students": {"A b": {}, "A-b": {}}}, "A-b--plain--0.json: rename one"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_training(
    dataset: Path, labels: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(config(dataset, labels, **changes))


def test_a_comparison_needs_labels(dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"`compare.train.labels` is missing"):
        plan(config(dataset, None))


def test_a_result_counts_only_for_the_settings_it_was_made_with(dataset: Path, labels: Path, tmp_path: Path) -> None:
    run = plan(config(dataset, labels))[0][0]
    assert done(tmp_path, run) is None
    save(tmp_path, run, Result(key=run.key, metrics={"test_hr@20": 0.5}, counts={}))
    assert done(tmp_path, run).metrics == {"test_hr@20": 0.5}
    train = TrainConfig.model_validate(run.config.model_dump() | {"learning_rate": 0.5})
    changed = plan(config(dataset, labels, train=train))[0][0]
    assert changed.name == run.name
    assert done(tmp_path, changed) is None
    (tmp_path / f"{run.name}.json").write_text("{")
    assert done(tmp_path, run) is None


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError.__mro__[1], match="no comparison"):
        _open(tmp_path)
