from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))


def test_head_has_no_gpu_and_gpu_workers_start_from_none(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types[cluster["head_node_type"]]
    workers = [kind for name, kind in types.items() if name != cluster["head_node_type"]]
    assert not head["resources"].get("GPU")
    assert workers
    assert all(kind["resources"]["GPU"] >= 1 and kind["min_workers"] == 0 < kind["max_workers"] for kind in workers)


def test_set_up_installs_the_cuda_requirements_with_the_overrides_and_the_project(cluster: dict[str, Any]) -> None:
    requirements, project = cluster["setup_commands"][-2:]
    for file in ("requirements/overrides.txt", "requirements/cuda.txt"):
        assert file in requirements
        assert (ROOT / file).is_file()
    assert "--editable ." in project
    assert "~/dllm2rec" in cluster["file_mounts"]
    assert {".git", ".venv", "runs", "data"} <= set(cluster["rsync_exclude"])


def test_images_carry_the_pinned_ray(cluster: dict[str, Any]) -> None:
    lines = (ROOT / "requirements/cuda.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if " " not in line)
    for image in ("head_image", "worker_image"):
        assert f":{pinned['ray']}-py311-" in cluster["docker"][image]


def test_every_node_has_the_token_and_the_mlflow_address(cluster: dict[str, Any]) -> None:
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        start = commands[-1]
        assert "ray start" in start
        assert "RAY_AUTH_MODE=token" in start
        assert "MLFLOW_TRACKING_URI=http://" in start
