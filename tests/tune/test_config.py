import pytest

from cluster.config import load_config
from cluster.errors import ConfigError
from student_train.config import TrainConfig
from tune.config import Domain, TuneConfig, render, without_unused


def load(*argv: str) -> TuneConfig:
    return load_config(TuneConfig, "tune", ["tune"], argv)


@pytest.mark.parametrize(
    "text", ["0.1..2", "0.1..6:log", "1..4:integer", "1..64:log:integer", "0.1234567..2", "sasrec,gru4rec", "1,2"]
)
def test_a_domain_is_the_text_it_is_written_as(text):
    domain = Domain.model_validate(text)
    assert render(domain) == text
    assert Domain.model_validate(domain.model_dump()) == domain


def test_values_keep_their_types():
    assert Domain.model_validate("true,null,3,0.5,both").values == (True, None, 3, 0.5, "both")
    assert Domain.model_validate("1..4:integer").ends() == (1, 4)


@pytest.mark.parametrize("given", ["1e-3,5E-4,x1e3", {"values": ["1e-3", "5E-4", "x1e3"]}])
def test_numbers_with_an_exponent_are_numbers(given):
    assert Domain.model_validate(given).values == (0.001, 0.0005, "x1e3")
    assert Domain.model_validate("1e-3..1e-2:log").ends() == (0.001, 0.01)


def test_a_domain_holds_what_it_can_draw():
    assert Domain.model_validate("0.1..2").holds(0.1)
    assert not Domain.model_validate("0.1..2").holds(2.1)
    assert not Domain.model_validate("0.1..2").holds("sasrec")
    assert Domain.model_validate("sasrec,gru4rec").holds("sasrec")
    assert Domain.model_validate("0..3:integer").holds(2)
    assert not Domain.model_validate("0..3:integer").holds(0.6)


def test_nested_values_come_from_the_command_line():
    config = load(
        "--search.space", "distillation.lam", "0.1..0.5", "model.name", "sasrec,gru4rec", "--train.batch-size", "64"
    )
    assert config.search.space["distillation.lam"] == Domain(low=0.1, high=0.5)
    assert config.search.space["model.name"] == Domain(values=("sasrec", "gru4rec"))
    assert config.train.batch_size == 64


def test_the_file_may_spell_a_domain_out(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "tune:\n  search:\n    space:\n      learning_rate: {low: 0.001, high: 0.01, log: true}\n"
        "      model.dropout: 0..0.5\n"
    )
    space = load("--config", str(tmp_path / "c.yaml")).search.space
    assert space == {
        "learning_rate": Domain(low=0.001, high=0.01, log=True),
        "model.dropout": Domain(low=0, high=0.5),
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--search.space", "lam", "2..2"], "`search.space.lam`: .*the range is empty: low 2 must be below high 2"),
        (["--search.space", "lam", "0..2:log"], "a logarithmic range must start above 0"),
        (["--search.space", "lam", "0.5..2:integer"], "whole numbers must start and end with one"),
        (["--search.space", "lam", "1..2:linear"], "linear is neither log nor integer"),
        (["--search.space", "lam", "1,2,1"], "a value stands twice"),
        (["--search.space", "lam", "1,[2"], r"`1,\[2`: \[2 is no value"),
        (["--search.space", "lam", "0..inf"], "finite number"),
        (["--search.space", "lam", "1,2:log"], "give either values, or low and high"),
        (["--search.objectives", "size"], "objectives must start with ndcg@20 or hr@20"),
        (["--search.objectives", "ndcg@20", "size"], "two objectives need the algorithm optuna, not random"),
        (["--search.algorithm", "bayes"], "bayes"),
        (["--asha.grace", "31"], "grace 31 must not exceed max_epochs 30"),
        (["--trials", "0"], "trials"),
        (["--train.output", "there"], "train.output has no effect here: the output directory of this verb"),
        (["--train.resources.workers", "2"], "train.resources has no effect here: set the verb's own `resources`"),
        (["--resources.autoscale", "True"], "resources.autoscale needs `concurrent`"),
        (["--search.scheduler", "pbt", "--resources.workers", "2"], "resources.workers must be 1 with the scheduler"),
        (["--search.algorithm", "grid", "--start-from", "x"], "start_from has no effect on a grid"),
        (["--depth", "3"], "--depth"),
    ],
)
def test_bad_values_are_one_line(argv, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(*argv)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_a_file_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("tune:\n  search:\n    gamma: {low: 0.1}\n")
    with pytest.raises(ConfigError, match=r"unknown key `tune\.search\.gamma`"):
        load("--config", str(tmp_path / "c.yaml"))


def test_a_train_section_of_another_verb_is_cleared_of_what_has_no_effect():
    train = TrainConfig(output="there", overwrite=True, register_as="me", epochs=3)
    assert TuneConfig(train=without_unused(train)).train == TrainConfig(epochs=3)
