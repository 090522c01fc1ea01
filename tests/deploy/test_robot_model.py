"""The overlay one-robot: `cloud-server k8s apply` brings it to a loopback cluster, and it works.

No cluster was there: no pod was ever made of it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from loopback_cluster import LoopbackCluster, write_kubeconfig

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
EXAMPLE = FOLDER / "robot-model" / "example.yaml"
ACCOUNT, SPACE = "robot-model-controller", "fleetlearn-robots"
OLDEST, NEWEST = "1.28", "1.37"
PATIENCE_S = 120.0
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def overlay(tool):
    """Return the overlay as kubectl makes it."""
    done = tool("kubectl", "kustomize", FOLDER / "overlays" / "one-robot")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def objects(overlay):
    """Return its objects by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(overlay)}


@pytest.fixture
def cluster(tmp_path):
    with LoopbackCluster(tmp_path) as cluster:
        write_kubeconfig(tmp_path / "kubeconfig", cluster.kubeconfig("robot-1"))
        yield cluster


@pytest.fixture
def k8s(tmp_path):
    """Return a function that types `cloud-server k8s ...`."""

    def call(*words, stdin=""):
        command = [BIN / "cloud-server", "k8s", *words, "--context", "robot-*",
                   "--kubeconfig", tmp_path / "kubeconfig"]  # fmt: skip
        done = subprocess.run(command, input=stdin, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_has_only_what_its_schema_knows(tool, overlay, tmp_path, version):
    (tmp_path / "all.yaml").write_text(overlay)
    done = tool("kubernetes-validate", "--strict", "-k", version, tmp_path / "all.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_controllers_pod_has_no_rights_and_sees_no_key(objects, require_command):
    pod = objects["Deployment", ACCOUNT]["spec"]["template"]["spec"]
    agent = objects["DaemonSet", "edge-agent"]["spec"]["template"]["spec"]
    (container,), (agents,) = pod["containers"], agent["containers"]
    assert pod["securityContext"] == agent["securityContext"]
    assert container["securityContext"] == agents["securityContext"]
    assert container["image"] == agents["image"]
    assert pod["nodeSelector"] == agent["nodeSelector"]
    assert container["resources"]["limits"]["memory"]
    require_command("edge-agent", *container["args"])

    state, scratch = container["volumeMounts"]
    assert (state["readOnly"], scratch["mountPath"]) == (True, "/tmp")
    (host,) = (one["hostPath"]["path"] for one in pod["volumes"] if one["name"] == "state")
    (robot,) = (one["hostPath"]["path"] for one in agent["volumes"] if one["name"] == "state")
    assert host == f"{robot}/state"  # agent.toml's default; the key is in the folder above
    assert container["args"][container["args"].index("--state") + 1] == state["mountPath"]
    assert agent["automountServiceAccountToken"] is False


def test_the_probe_sees_a_controller_that_looks_no_more(objects, tmp_path):
    (container,) = objects["Deployment", ACCOUNT]["spec"]["template"]["spec"]["containers"]
    alive = container["args"][container["args"].index("--alive") + 1]
    command = container["livenessProbe"]["exec"]["command"]
    assert command == container["startupProbe"]["exec"]["command"]
    here = [word.replace(alive, str(tmp_path / "alive")) for word in command]

    def code():
        return subprocess.run(here, capture_output=True).returncode

    assert code() != 0
    (tmp_path / "alive").touch()
    assert code() == 0
    os.utime(tmp_path / "alive", (time.time() - 600,) * 2)
    assert code() != 0


def test_the_binding_gives_the_role_to_the_pods_account_alone(objects):
    binding = objects["RoleBinding", ACCOUNT]
    assert binding["roleRef"]["name"] == objects["Role", ACCOUNT]["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert (subject["name"], subject["namespace"]) == (ACCOUNT, SPACE)
    spec = objects["Deployment", ACCOUNT]["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == objects["ServiceAccount", ACCOUNT]["metadata"]["name"]
    rules = objects["Role", ACCOUNT]["rules"]
    assert not {"*", "create", "delete", "update"} & {v for rule in rules for v in rule["verbs"]}


def test_a_robot_is_set_up_followed_and_told_of(cluster, k8s, overlay, objects, tmp_path):
    kit = "apiVersion: v1\nkind: Secret\nmetadata: {name: kit, namespace: fleetlearn-robots}\n"
    (tmp_path / "kit.yaml").write_text(kit + "data: {token: YQo=}\n")
    k8s("apply", "-", str(tmp_path / "kit.yaml"), str(EXAMPLE), stdin=overlay)
    again = json.loads(k8s("apply", "-", str(EXAMPLE), "--json", stdin=overlay))
    assert {one["state"] for one in again["robots"][0]["objects"]} == {"unchanged"}
    assert cluster.get("secrets", SPACE, "kit")["data"] == {"token": "YQo="}

    # The pod of the controller: its account has the role and nothing else.
    cluster.users["pod-token"], cluster.roles[ACCOUNT] = ACCOUNT, objects["Role", ACCOUNT]["rules"]
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("pod-token")
    (account / "namespace").write_text(SPACE)
    (account / "ca.crt").write_bytes(cluster.authority.pem)
    state = tmp_path / "state"
    state.mkdir()
    status = {"name": "r1", "site": "hall", "state": "idle", "channel": "stable"}
    (state / "status.json").write_text(json.dumps({**status, "active_version": 7}))
    code = (
        "import pathlib, sys; from edge_agent.kubernetes import in_cluster as module;"
        f"here = pathlib.Path({str(account)!r}); of = module.in_cluster;"
        "of.__defaults__ = (here, *of.__defaults__[1:]);"
        "from edge_agent.cli import main; main()"
    )
    environment = {**os.environ, "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                   "KUBERNETES_SERVICE_PORT": cluster.url.rpartition(":")[2]}  # fmt: skip
    words = ["k8s-controller", "--state", state, "--alive", tmp_path / "alive"]
    log = (tmp_path / "log").open("wb")
    with subprocess.Popen([sys.executable, "-c", code, *words], env=environment, stderr=log) as pod:
        try:
            until("the agent is set", lambda: "stable" in str(variables(cluster)), tmp_path / "log")
            roll_out(cluster)
            until("ready", lambda: " yes " in k8s("status"), tmp_path / "log")
        finally:
            pod.terminate()
        assert pod.wait(60) == 0
    (robot,) = json.loads(k8s("status", "--json"))["robots"]
    (model,) = robot["models"]
    assert (model["ready"], model["status"]["activeVersion"]) == ("yes", 7)
    assert "403" not in (tmp_path / "log").read_text()
    assert "may not" not in (tmp_path / "log").read_text()
    # What the controller has set is not undone by the manifests.
    k8s("apply", "-", stdin=overlay)
    assert variables(cluster) == {"EDGE_AGENT_SERVER__CHANNEL": "stable"}


def variables(cluster):
    (container,) = cluster.get("daemonsets", SPACE, "edge-agent")["spec"]["template"]["spec"][
        "containers"
    ]
    return {one["name"]: one["value"] for one in container.get("env", ())}


def roll_out(cluster):
    """As the cluster's own controller says when the pod is as it should be."""
    generation = cluster.get("daemonsets", SPACE, "edge-agent")["metadata"]["generation"]
    cluster.set_status("daemonsets", SPACE, "edge-agent", {
        "observedGeneration": generation, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1,
        "numberReady": 1,
    })  # fmt: skip


def until(what, done, log):
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, f"{what}\n{log.read_text()[-2000:]}"
        time.sleep(0.2)


def test_kubectl_which_is_not_ours_sees_and_changes_the_same(tool, cluster, k8s, overlay, tmp_path):
    k8s("apply", "-", str(EXAMPLE), stdin=overlay)
    kubectl = ("kubectl", "--kubeconfig", tmp_path / "kubeconfig", "--context", "robot-1",
               "--cache-dir", tmp_path / "cache")  # fmt: skip
    seen = tool(*kubectl, "get", "robotmodels", "-n", SPACE, "-o", "json")
    assert seen.returncode == 0, seen.stderr
    (model,) = json.loads(seen.stdout)["items"]
    assert model["spec"] == {"channel": "stable", "agent": "edge-agent"}

    (tmp_path / "canary.yaml").write_text(EXAMPLE.read_text().replace("stable", "canary"))
    apply = (*kubectl, "apply", "--server-side", "--validate=false", "-f", tmp_path / "canary.yaml")
    conflict = tool(*apply)
    assert 'conflict with "fleetlearn-cloud-server"' in conflict.stderr
    forced = tool(*apply, "--force-conflicts")
    assert forced.returncode == 0, forced.stderr
    assert cluster.get("robotmodels", SPACE, "front-camera")["spec"]["channel"] == "canary"
