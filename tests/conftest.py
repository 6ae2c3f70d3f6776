"""Fixtures shared by all rooms."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.config import ClusterConfig, TrackingConfig
from cluster.storage import output_directory
from data_prep.schema import ITEMS, ITEMS_FILE, RANKS, RANKS_FILE
from tests.mlflow_server import Listening, mlflow_server

pytest_plugins = ["tests.teacher_fixtures"]
# Second threads cost more than they bring to tensors of this size.
torch.set_num_threads(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes run the tests (``-n``), keep a file in one of them, and all that share a teacher."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "teacher" if nodeid.startswith("tests/teacher_") else nodeid.partition("::")[0]

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One local Ray of two CPUs for all tests that need one."""
    from cluster.ray_session import ray_session

    with ray_session(ClusterConfig(cpus=2), dashboard=True):
        yield


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], TrackingConfig]:
    """Makes MLflow stores that share nothing; their tables, slow to create, are made once and copied."""
    import mlflow

    template = tmp_path_factory.mktemp("mlflow") / "runs.db"
    mlflow.MlflowClient(f"sqlite:///{template}").search_experiments()

    def make() -> TrackingConfig:
        copy = tmp_path_factory.mktemp("store") / "mlflow.db"
        copy.write_bytes(template.read_bytes())
        return TrackingConfig(uri=f"sqlite:///{copy}")

    return make


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """One MLflow server for all tests that need one."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as running:
        yield running


MakeStudent = Callable[..., Path]


def student_maker(folder: Path) -> MakeStudent:
    """Writes finished student directories of 20 items (ids ``i0`` …) with random weights into ``folder``."""
    from student_train.config import ModelConfig, TrainConfig
    from student_train.exported import export_student
    from student_train.models.student import Student

    def make(
        name: str = "student",
        ndcg: float = 0.1,
        dataset: str = "fingerprint-of-data",
        seed: int = 0,
        ranks: Sequence[int] | None = (1, 30, 2, 30),
    ) -> Path:
        titles = [f"Title {at}" for at in range(20)]
        titles[7] = "Title 3"
        columns = [range(20), [f"i{at}" for at in range(20)], titles, [at * 3 % 20 for at in range(20)]]
        items = folder / f"{name}-{ITEMS_FILE}"
        pq.write_table(pa.table(columns, schema=ITEMS), items)
        torch.manual_seed(seed)
        model = ModelConfig(hidden_size=8, num_heads=1, num_layers=1, max_length=5)
        with output_directory(
            folder / name, verb="train", config=TrainConfig(model=model), inputs={"dataset": dataset}
        ) as draft:
            export_student(draft.path, Student(model, 20), model, items)
            (draft.path / "curve.json").write_text('[{"epoch": 1, "loss": 2.5, "ndcg@20": 0.1}]')
            if ranks is not None:
                rows = range(len(ranks))
                pq.write_table(pa.table([rows, rows, ranks], schema=RANKS), draft.path / RANKS_FILE)
            draft.metrics |= {"validation_ndcg@20": ndcg, "test_hr@20": 0.25}
        return folder / name

    return make


@pytest.fixture
def make_student(tmp_path: Path) -> MakeStudent:
    """See :func:`student_maker`."""
    return student_maker(tmp_path)


@pytest.fixture(scope="module")
def make_module_student(tmp_path_factory: pytest.TempPathFactory) -> MakeStudent:
    """See :func:`student_maker`; for a whole module."""
    return student_maker(tmp_path_factory.mktemp("students"))
