"""The pipeline on an object store whose server now and then fails or takes its time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.files import CACHE_VARIABLE
from tests.object_store import object_store

pytestmark = pytest.mark.engine

PIPELINE = """
import sys
import pyarrow as pa
from pyarrow.csv import write_csv
import dllm2rec
from cluster.files import read_parquet, write_parquet, written
from cluster.paths import files_under, storage_path
from cluster.storage import read_manifest
from data_prep.config import SyntheticConfig
from data_prep.schema import shard_name
from data_prep.synthetic import generate

RUNS = "s3://bucket/runs"
tracking, cluster = {"uri": sys.argv[1]}, {"cpus": 2}
raw = {"interactions": f"{RUNS}/raw/log.csv", "items": f"{RUNS}/raw/items.csv"}
for file, table in zip(raw.values(), generate(SyntheticConfig(items=60, users=60))):
    with written(storage_path(file)) as aside:
        write_csv(table.columns, aside)
dllm2rec.prepare(source="csv", **raw, rows_per_shard=50, output=f"{RUNS}/dataset")
dataset = {"dataset": f"{RUNS}/dataset"}
dllm2rec.label(
    **dataset, teacher="minilm", ranking="embed", top_k=5, splits=("train", "validation"), rows_per_shard=100,
    cluster=cluster, output=f"{RUNS}/labels",
)
train = {
    **dataset, "labels": f"{RUNS}/labels", "distillation": {"top_k": 5}, "epochs": 2,
    "model": {"hidden_size": 8, "max_length": 5},
}
dllm2rec.train(**train, max_failures=1, cluster=cluster, tracking=tracking, output=f"{RUNS}/student")
search = {"train": train, "trials": 2, "concurrent": 1, "cluster": cluster, "tracking": tracking}
dllm2rec.tune(**search, search={"scheduler": "none"}, output=f"{RUNS}/search")
dllm2rec.register(student=f"{RUNS}/student", tracking=tracking, output=f"{RUNS}/registration")
dllm2rec.recommend(model="models:/dllm2rec-student/2", tracking=tracking, output=f"{RUNS}/for-one")
histories = pa.table({"history": [["g00001", "g00002"], ["g00003"]]})
write_parquet(histories, storage_path(f"{RUNS}/histories.parquet"))
dllm2rec.recommend(
    model=f"{RUNS}/student", histories=f"{RUNS}/histories.parquet", k=3, cluster=cluster, output=f"{RUNS}/for-many"
)
for verb in ("dataset", "labels", "student", "search", "search/student", "registration", "for-one", "for-many"):
    read_manifest(storage_path(f"{RUNS}/{verb}"))
answers = read_parquet(storage_path(f"{RUNS}/for-many/{shard_name(0)}"))
assert [len(row) for row in answers["item_ids"].to_pylist()] == [3, 3]
assert not [file.name for file in files_under(storage_path(RUNS)) if ".unfinished" in file.name]
"""


def test_the_pipeline_runs_on_an_object_store_through_its_faults(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    with object_store(tmp_path, "--fail-every", "13", "--slow-every", "29") as store:
        environment = (
            os.environ | store.environment | {"PYTHONPATH": str(root), CACHE_VARIABLE: str(tmp_path / "cache")}
        )
        done = subprocess.run(
            [sys.executable, "-c", PIPELINE, f"sqlite:///{tmp_path}/mlflow.db"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        spoilt = store.log.read_text().splitlines()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert len(spoilt) > 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "faults.log", "mlartifacts", "mlflow.db"]
