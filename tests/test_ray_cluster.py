"""What ``ray up`` gets: Ray's own validator, and which nodes Ray's own scheduler starts for what a verb asks."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

ROOT = Path(__file__).parents[1]
FILES = ("ray_cluster.yaml", "ray_cluster_gcp.yaml")


@pytest.fixture(params=FILES)
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load((ROOT / request.param).read_text())


def started(cluster: dict[str, Any], workers: int, each: dict[str, float], sold_out: tuple[str, ...] = ()) -> dict:
    """Nodes by type that Ray starts for so many workers, where the cloud has no room for some types."""
    config = AutoscalingConfig(prepare_config(cluster), skip_content_hash=True)
    none = dict.fromkeys(sold_out, 0.0)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(each)] * workers),
        cloud_resource_availabilities=none,
        recoverable_resource_availabilities=none,
    )
    return {launch.instance_type: launch.count for launch in ResourceDemandScheduler().schedule(request).to_launch}


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))


def test_a_search_on_cpus_starts_no_gpus(cluster: dict[str, Any]) -> None:
    assert started(cluster, 64, {"CPU": 1}) == {"cpu_spot": 4}


def test_where_there_is_no_spot_room_the_price_is_paid(cluster: dict[str, Any]) -> None:
    assert started(cluster, 64, {"CPU": 1}, ("cpu_spot",)) == {"cpu_on_demand": 4}
    assert started(cluster, 4, {"CPU": 1, "GPU": 1}, ("gpu_spot",)) == {"gpu_on_demand": 4}


def test_a_gpu_is_the_cheapest_that_does(cluster: dict[str, Any]) -> None:
    assert started(cluster, 4, {"CPU": 1, "GPU": 1}) == {"gpu_spot": 4}
    assert started(cluster, 20, {"CPU": 1, "GPU": 0.1}) == {"gpu_spot": 2}


def test_a_kind_of_gpu_and_many_gpus_are_had_by_asking(cluster: dict[str, Any]) -> None:
    assert started(cluster, 4, {"CPU": 1, "GPU": 1, "accelerator_type:H100": 0.001}) == {"large_gpu": 4}
    assert started(cluster, 2, {"CPU": 1, "GPU": 8}) == {"eight_gpus": 2}


def test_nothing_runs_at_rest_or_on_the_head(cluster: dict[str, Any]) -> None:
    types = dict(cluster["available_node_types"])
    head = types.pop(cluster["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert "--num-cpus=0" in cluster["head_start_ray_commands"][-1]
    assert all(not kind.get("min_workers") and kind["max_workers"] > 0 for kind in types.values())


def test_gpu_nodes_have_the_cuda_image_and_nodes_install_nothing(cluster: dict[str, Any]) -> None:
    for kind in cluster["available_node_types"].values():
        image = kind.get("docker", {}).get("worker_image", cluster["docker"]["worker_image"])
        assert image == ("IMAGE_CUDA" if kind["resources"].get("GPU") else "IMAGE_CPU")
    assert cluster["setup_commands"] == ["python -m cluster.node_check"]


def test_every_machine_has_a_driver_for_the_wheels_and_the_rights_that_it_needs() -> None:
    for kind in yaml.safe_load((ROOT / FILES[0]).read_text())["available_node_types"].values():
        assert kind["node_config"]["ImageId"].startswith(
            "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia"
        )
        assert kind["node_config"]["IamInstanceProfile"]
        assert kind["node_config"]["SecurityGroupIds"]
    for kind in yaml.safe_load((ROOT / FILES[1]).read_text())["available_node_types"].values():
        (disk,) = kind["node_config"]["disks"]
        assert int(re.search(r"nvidia-(\d+)$", disk["initializeParams"]["sourceImage"])[1]) >= 580
        assert kind["node_config"]["serviceAccounts"]


def test_every_node_has_the_token_the_mlflow_address_and_the_storage(cluster: dict[str, Any]) -> None:
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        start = commands[-1]
        assert "ray start" in start
        assert "RAY_AUTH_MODE=token" in start
        assert "MLFLOW_TRACKING_URI=http://" in start
    assert re.search(r"DLLM2REC_STORAGE=(s3|gs)://", " ".join(cluster["docker"]["run_options"]))


def test_mlflow_answers_to_the_address_that_nodes_ask(cluster: dict[str, Any]) -> None:
    server = next(command for command in cluster["head_start_ray_commands"] if "mlflow server" in command)
    assert "--allowed-hosts \"$(hostname -i | cut -d' ' -f1):5000," in server
