"""The manifests of KubeRay against the schemas of Kubernetes and KubeRay, and what they promise."""

import re
import shlex
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from cluster.config import load_config
from dllm2rec import VERBS

FOLDER = Path(__file__).parents[2] / "cluster/kuberay"
FILLED = {
    "IMAGE": "registry.example/dllm2rec:cpu",
    "GPU_IMAGE": "registry.example/dllm2rec:cuda",
    "STORAGE": "s3://bucket/runs",
    "ROLE": "arn:aws:iam::111122223333:role/dllm2rec",
}
KUBERNETES = "1.33"
DEFINITIONS = f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict/_definitions.json"
CORE = f"{Path(DEFINITIONS).name}#/$defs/io.k8s.api.core.v1."


def fields(required: tuple[str, ...] = (), **known: Any) -> dict[str, Any]:
    return {"type": "object", "properties": known, "required": [*required], "additionalProperties": False}


TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
CREDENTIAL = fields(value=TEXT, valueFrom={"$ref": f"{CORE}EnvVarSource"})
GROUP = {"rayStartParams": TEXTS, "template": {"$ref": f"{CORE}PodTemplateSpec"}}
# The fields of ray.io/v1 that the manifests use, as KubeRay 1.6's API reference types them.
CLUSTER = fields(
    ("headGroupSpec",),
    rayVersion=TEXT,
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=fields(
        idleTimeoutSeconds=WHOLE,
        resources={"$ref": f"{CORE}ResourceRequirements"},
        version={"enum": ["v1", "v2"]},
    ),
    authOptions=fields(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    gcsFaultToleranceOptions=fields(
        redisAddress=TEXT, redisUsername=CREDENTIAL, redisPassword=CREDENTIAL, externalStorageNamespace=TEXT
    ),
    headGroupSpec=fields(("template",), **GROUP),
    workerGroupSpecs={
        "type": "array",
        "items": fields(
            ("groupName", "template"),
            groupName=TEXT,
            replicas=WHOLE,
            minReplicas=WHOLE,
            maxReplicas=WHOLE,
            idleTimeoutSeconds=WHOLE,
            **GROUP,
        ),
    },
)
JOB = fields(
    entrypoint=TEXT,
    entrypointNumCpus={"type": "number"},
    runtimeEnvYAML=TEXT,
    backoffLimit=WHOLE,
    submitterConfig=fields(backoffLimit=WHOLE),
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=WHOLE,
    activeDeadlineSeconds=WHOLE,
    rayClusterSpec=CLUSTER,
)
KINDS = {"RayCluster": CLUSTER, "RayJob": JOB}


def documents(name: str) -> list[dict[str, Any]]:
    filled = re.sub(r"\$\{(\w+)\}", lambda found: FILLED[found[1]], (FOLDER / name).read_text())
    return list(yaml.safe_load_all(filled))


FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
ALL = [pytest.param(made, id=f"{name}-{made['kind']}") for name in FILES for made in documents(name)]
CLUSTERS = {"cluster.yaml": documents("cluster.yaml")[0]["spec"]}
CLUSTERS["job.yaml"] = documents("job.yaml")[0]["spec"]["rayClusterSpec"]


def validate(made: dict[str, Any]) -> None:
    if made["kind"] not in KINDS:
        kubernetes_validate.validate(made, KUBERNETES, strict=True)
        return
    definitions = Resource.from_contents(schema_contents(DEFINITIONS, KUBERNETES))
    registry: Registry[Any] = Registry().with_resource(Path(DEFINITIONS).name, definitions)
    schema = fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind=TEXT,
        metadata={"type": "object"},
        spec=KINDS[made["kind"]],
    ) | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    jsonschema.Draft202012Validator(schema, registry=registry).validate(made)


@pytest.mark.parametrize("made", ALL)
def test_the_schemas_accept_a_manifest(made: dict[str, Any]) -> None:
    validate(made)


@pytest.mark.parametrize(
    ("group", "changed"),
    [("spec", {"rayVersions": "2.60.0"}), ("spec", {"enableInTreeAutoscaling": "yes"})],
)
def test_the_schema_refuses_what_the_operator_would(group: str, changed: dict[str, Any]) -> None:
    made = documents("cluster.yaml")[0]
    made[group] |= changed
    with pytest.raises(jsonschema.ValidationError):
        validate(made)


def test_the_schema_looks_into_pods() -> None:
    made = documents("cluster.yaml")[0]
    made["spec"]["headGroupSpec"]["template"]["spec"]["container"] = []
    with pytest.raises(jsonschema.ValidationError):
        validate(made)


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_head_runs_no_work_and_asks_for_the_token(name: str) -> None:
    spec = CLUSTERS[name]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["authOptions"]["mode"] == "token"


@pytest.mark.parametrize("name", CLUSTERS)
def test_groups_for_gpus_cost_nothing_at_rest_and_run_on_tainted_spot_nodes(name: str) -> None:
    groups = [pod(group) | {"group": group} for group in CLUSTERS[name]["workerGroupSpecs"]]
    gpus = [group for group in groups if "nvidia.com/gpu" in group["containers"][0]["resources"]["limits"]]
    assert gpus
    assert len(groups) > len(gpus), "a search on CPUs would start GPU nodes"
    for group in gpus:
        assert group["group"]["minReplicas"] == 0
        assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= {taint["key"] for taint in group["tolerations"]}
        assert group["containers"][0]["image"] == FILLED["GPU_IMAGE"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_no_pod_takes_more_than_it_asked_for(name: str) -> None:
    spec = CLUSTERS[name]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        resources = pod(group)["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]


def test_mlflow_answers_to_the_name_that_the_pods_ask() -> None:
    services = {(made["kind"], made["metadata"]["name"]): made for made in documents("services.yaml")}
    server = services["Deployment", "dllm2rec-mlflow"]["spec"]["template"]["spec"]["containers"][0]["command"]
    allowed = next(word.partition("=")[2] for word in server if word.startswith("--allowed-hosts")).split(",")
    for spec in CLUSTERS.values():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            env = {variable["name"]: variable["value"] for variable in pod(group)["containers"][0]["env"]}
            assert env["MLFLOW_TRACKING_URI"].removeprefix("http://") in allowed
            assert ("Service", env["MLFLOW_TRACKING_URI"].removeprefix("http://").partition(":")[0]) in services
    redis = CLUSTERS["cluster.yaml"]["gcsFaultToleranceOptions"]["redisAddress"]
    assert ("Service", redis.partition(":")[0]) in services


def test_a_job_is_a_command_of_ours_that_resumes_on_a_new_cluster() -> None:
    job = documents("job.yaml")[0]["spec"]
    program, verb, *argv = shlex.split(job["entrypoint"])
    assert program == "dllm2rec"
    config = load_config(resolve_name(VERBS[verb].config), verb, list(VERBS), argv)
    assert str(config.output).startswith(FILLED["STORAGE"])
    assert job["backoffLimit"] > 0
    assert job["shutdownAfterJobFinishes"]
    assert job["entrypointNumCpus"] > 0


def pod(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]
