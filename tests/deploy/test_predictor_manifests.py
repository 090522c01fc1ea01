"""deploy/kubernetes/predictor, judged: by KServe's classes, by Kubernetes' schemas, by the product.

No cluster and no controller of KServe was there.
"""

import copy
import re
from pathlib import Path

import pytest
import yaml

from edge_agent.cli.serve_command import POD_GRPC, POD_REST

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes" / "predictor"
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
VERSION = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
OF_KSERVE = {"ServingRuntime", "InferenceService"}
OF_KSERVE_ALONE = {"model", "minReplicas", "maxReplicas"}  # of a predictor; the rest is a pod's

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rendered(tool):
    done = tool("kubectl", "kustomize", FOLDER)
    assert done.returncode == 0, done.stderr
    every = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    return lambda: copy.deepcopy(every)


@pytest.fixture(scope="module")
def faults(tool, tmp_path_factory):
    """Return a function that gives what KServe's own classes say against objects."""

    def faults(*objects):
        file = tmp_path_factory.mktemp("kserve") / "objects.yaml"
        file.write_text(yaml.safe_dump_all(objects))
        done = tool("python", Path(__file__).parent / "kserve_schema.py", file)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return faults


def pod(objects):
    """Return the pod that KServe makes of both objects, but for what it adds."""
    predictor = objects["InferenceService"]["spec"]["predictor"]
    spec = {key: value for key, value in predictor.items() if key not in OF_KSERVE_ALONE}
    containers = objects["ServingRuntime"]["spec"]["containers"]
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"},
        "spec": {**spec, "containers": containers},
    }  # fmt: skip


def test_kserves_own_classes_know_every_field(rendered, faults):
    objects = rendered()
    assert faults(*(objects[kind] for kind in sorted(OF_KSERVE))) == []

    runtime, service = objects["ServingRuntime"], objects["InferenceService"]
    predictor = service["spec"]["predictor"]
    predictor["minReplica"] = predictor.pop("minReplicas")
    predictor["maxReplicas"] = "3"
    runtime["spec"]["protocolVersion"] = runtime["spec"].pop("protocolVersions")
    told = "\n".join(faults(runtime, service))
    for words in ("'protocolVersion'", "'minReplica'", "expected int, got str"):
        assert words in told


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_the_pod_and_what_is_around_it_have_only_what_their_schemas_know(
    rendered, tool, tmp_path, version
):
    objects = rendered()
    judged = [pod(objects), *(one for kind, one in objects.items() if kind not in OF_KSERVE)]
    assert len(judged) == 4
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(judged))
    done = tool("kubernetes-validate", "--strict", "-k", version, file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_container_runs_a_command_of_the_agents_image(rendered, require_command):
    objects = rendered()
    (container,) = pod(objects)["spec"]["containers"]
    name = objects["InferenceService"]["metadata"]["name"]
    require_command("edge-agent", *(one.replace("{{.Name}}", name) for one in container["args"]))
    assert container["image"] == f"fleetlearn/agent:{VERSION}"
    assert 'ENTRYPOINT ["edge-agent"]' in DOCKERFILE
    assert container["name"] == "kserve-container"  # the one that KServe puts the model into
    assert container["args"][:4] == ["serve", "--bundle", "/mnt/models", "--pod"]


def test_ports_probes_and_policy_are_the_servers_own(rendered):
    objects = rendered()
    (container,) = pod(objects)["spec"]["containers"]
    ports = [int(address.rpartition(":")[2]) for address in (POD_REST, POD_GRPC)]
    assert [one["containerPort"] for one in container["ports"]] == ports
    for probe, path in (("startup", "ready"), ("readiness", "ready"), ("liveness", "live")):
        asked = container[f"{probe}Probe"]["httpGet"]
        assert asked == {"path": f"/v2/health/{path}", "port": ports[0]}
    policy = objects["NetworkPolicy"]["spec"]
    (rule,) = policy["ingress"]
    assert [one["port"] for one in rule["ports"]] == ports
    assert rule["from"]
    assert policy["egress"] == []
    assert list(policy["podSelector"]["matchLabels"].values()) == [
        objects["InferenceService"]["metadata"]["name"]
    ]


def test_the_pod_has_no_rights_and_its_model_is_on_the_claim(rendered):
    objects = rendered()
    spec = pod(objects)["spec"]
    user = int(re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)[0])
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == user
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert "volumeMounts" not in container  # nothing to write into
    model = objects["InferenceService"]["spec"]["predictor"]["model"]
    runtime = objects["ServingRuntime"]
    claim = objects["PersistentVolumeClaim"]["metadata"]["name"]
    assert model["storageUri"].startswith(f"pvc://{claim}/")
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"] in runtime["spec"]["supportedModelFormats"]
