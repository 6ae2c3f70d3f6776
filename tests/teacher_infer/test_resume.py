"""Labelling that is killed at any place and run again: the same rows, the same bytes."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml

from cluster.config import ResourcesConfig
from cluster.errors import ConfigError, StaleInputError, UserError
from cluster.storage import MANIFEST_FILE, read_manifest
from data_prep.schema import SPLITS, failure_file, label_file, label_files
from teacher_infer.config import LabelConfig
from teacher_infer.label import label
from tests.teacher_fixtures import ROWS, TITLES, write_dataset
from tests.teacher_infer.conftest import SMALL, job

pytestmark = pytest.mark.engine
ALL_ROWS = sum(ROWS.values())


def minilm(dataset, output, **options):
    settings = {"teacher": "minilm", "ranking": "embed", "top_k": 5, "rows_per_shard": 8}
    return LabelConfig(dataset=dataset, output=output, **(settings | options))


def shards(output):
    return [file for split in SPLITS for file in label_files(output, split)]


def rows(files):
    return pa.concat_tables(pq.read_table(file) for file in files).to_pylist()


def actors():
    """Processes of the pool that this test session's Ray runs."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::Labeller"):
                found.append(process)
    return found


def test_a_killed_actor_is_replaced_within_the_run(tiny_teacher, grounded, tmp_path):
    killed = []

    def kill():
        first, found = label_file(tmp_path / "labels", "test", 0), []
        for at in itertools.count():
            if first.is_file():
                break
            if at % 100 == 0:  # looking at processes takes long
                found = actors()
            time.sleep(0.001)
        for process in found:
            process.kill()
        assert found
        killed.append(len(shards(tmp_path / "labels")))

    killer = threading.Thread(target=kill)
    killer.start()
    label(job(tiny_teacher, tmp_path / "labels", **SMALL))
    killer.join()
    assert killed and killed[0] < len(shards(tmp_path / "labels"))
    assert rows(shards(tmp_path / "labels")) == rows(label_files(grounded, "test"))


def test_a_killed_driver_is_followed_by_one_that_does_the_rest(tiny_teacher, beamed, tmp_path, capfd):
    wanted = job(tiny_teacher, tmp_path / "labels", ranking="beam", beams=len(TITLES), **SMALL)
    file = tmp_path / "label.yaml"
    file.write_text(yaml.safe_dump({"label": json.loads(wanted.model_dump_json())}))
    driver = subprocess.Popen(
        [sys.executable, "-m", "dllm2rec", "label", "--config", str(file)],
        start_new_session=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(shards(tmp_path / "labels")) < 3 and driver.poll() is None:
        time.sleep(0.001)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    begun = {shard: shard.stat().st_mtime_ns for shard in shards(tmp_path / "labels")}
    assert 3 <= len(begun) < len(shards(beamed))
    assert not (tmp_path / "labels" / MANIFEST_FILE).exists()
    label(wanted)
    assert "rows are labelled already" in capfd.readouterr().out
    assert {shard: shard.stat().st_mtime_ns for shard in begun} == begun
    assert rows(shards(tmp_path / "labels")) == rows(shards(beamed))
    counts, expected = read_manifest(tmp_path / "labels").counts, read_manifest(beamed).counts
    assert counts == expected
    assert counts["test"] == ROWS["test"]


def test_a_finished_job_is_not_done_again(tiny_teacher, grounded, capfd):
    manifest = (grounded / MANIFEST_FILE).read_bytes()
    label(job(tiny_teacher, grounded))
    assert "every row is labelled already" in capfd.readouterr().out
    assert (grounded / MANIFEST_FILE).read_bytes() == manifest


def test_a_changed_job_is_refused(tiny_teacher, grounded):
    with pytest.raises(StaleInputError, match=r"max_new_tokens \(32, now 8\)"):
        label(job(tiny_teacher, grounded, max_new_tokens=8))


def test_prompts_that_read_alike_are_answered_once(tiny_teacher, grounded):
    from data_prep.reading import read_rows
    from data_prep.schema import sequence_files

    files = [file for split in SPLITS for file in sequence_files(tiny_teacher.dataset, split)]
    histories = [tuple(history) for file in files for history in read_rows(file)["history"].to_pylist()]
    assert read_manifest(grounded).counts["prompts"] == len(set(histories)) < len(histories)


@pytest.fixture
def untitled(tmp_path):
    """A data set in which one item of the catalogue has an empty title."""
    return write_dataset(tmp_path / "dataset", [*TITLES[:7], " ", *TITLES[8:]])


def histories_with(dataset, item):
    from data_prep.reading import read_rows
    from data_prep.schema import sequence_files

    tables = [(split, read_rows(file).to_pylist()) for split in SPLITS for file in sequence_files(dataset, split)]
    return {row["row_id"]: split for split, found in tables for row in found if item in row["history"]}


def test_too_many_failures_stop_the_job_and_what_was_done_is_kept(untitled, ray_local, tmp_path):
    failing = histories_with(untitled, 7)
    output = tmp_path / "labels"
    with pytest.raises(UserError, match=r"rows failed, more than --max-failures 0.01 allows \(row \d+: item 7 of"):
        label(minilm(untitled, output))
    assert not (output / MANIFEST_FILE).exists()
    assert shards(output)
    label(minilm(untitled, output, max_failures=0.5))
    assert len(rows(shards(output))) == ALL_ROWS - len(failing)
    files = [failure_file(output, split, number) for split in SPLITS for number in range(20)]
    failures = pa.concat_tables(pq.read_table(file) for file in files if file.is_file()).to_pylist()
    assert {row["row_id"] for row in failures} == set(failing)
    assert {row["error"] for row in failures} == {"item 7 of the history has an empty title"}
    counts = read_manifest(output).counts
    assert counts["test_failed"] == list(failing.values()).count("test")
    assert counts["train"] == ROWS["train"] - counts["train_failed"]


def test_engines_without_room_fail_within_the_stated_time(tiny_dataset, ray_local, tmp_path):
    resources = ResourcesConfig(cpus=64, autoscale=True)
    with pytest.raises(ConfigError, match=r"no room within 2 s: they ask for 64 CPU, free are \d"):
        label(minilm(tiny_dataset, tmp_path / "labels", resources=resources, placement_timeout=2))
