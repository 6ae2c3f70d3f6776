from pathlib import Path

import pytest

from student_train.config import TrainConfig
from tests.tune.records import record
from tune.checkpoints import CHECKPOINTS_FOLDER, Prune, keep
from tune.config import Domain, SearchConfig, TuneConfig
from tune.journal import Journal


def test_a_checkpoint_is_whole_or_not_there(tmp_path: Path) -> None:
    keep(tmp_path, 3, lambda folder: (folder / "weights").write_text("first"))

    def fails(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise OSError

    with pytest.raises(OSError):
        keep(tmp_path, 3, fails)
    assert (tmp_path / "3" / "weights").read_text() == "first"
    keep(tmp_path, 3, lambda folder: (folder / "weights").write_text("second"))
    assert (tmp_path / "3" / "weights").read_text() == "second"


def test_two_rounds_and_the_best_stay(tmp_path: Path) -> None:
    search = SearchConfig(space={"learning_rate": Domain(low=1e-4, high=1e-2)}, scheduler="pbt")
    config = TuneConfig(train=TrainConfig(dataset=tmp_path), search=search, output=tmp_path / "search")
    journal = Journal(config.output, {})
    prune, folder = Prune(journal, config, size=2), config.output / CHECKPOINTS_FOLDER
    stay = []
    for number, ndcg in enumerate([0.1, 0.5, 0.2, 0.3, 0.2, 0.2, 0.6, 0.1, 0.1, 0.1, 0.2]):
        keep(folder, number, lambda at: (at / "weights").write_text(""))
        journal.append(record(number, ndcg))
        prune.on_step_end(0, [])
        stay.append(sorted(int(checkpoint.name) for checkpoint in folder.iterdir()))
    journal.close()
    assert stay[4] == [0, 1, 2, 3, 4]
    assert stay[5] == [1, 2, 3, 4, 5]
    assert stay[7] == [4, 5, 6, 7]
    assert stay[9] == stay[10][:-1] == [6, 7, 8, 9]
