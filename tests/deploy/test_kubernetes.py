"""deploy/kubernetes: rendered by kubectl, judged by the schemas, held against the product by value.

No cluster was there: nothing was applied, no ingress has passed on a request.
"""

import copy
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from cloud_server.state.settings import NetworkSettings, load_settings
from cloud_server.web.guard import FLEET, HEALTH, OWN
from edge_agent.agent.service import ALIVE_S
from edge_agent.robot.settings import load_settings as load_agent_settings
from fleet_model.protocol.routes import ADMIN, CHANNEL, HELLO, OBJECT, ROBOT, WHOAMI, path_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
DOCKERFILE = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
ELSEWHERE = {"one-robot", "vision-language"}  # test_robot_model.py, test_desks.py
OVERLAYS = sorted({one.name for one in (FOLDER / "overlays").iterdir()} - ELSEWHERE)
OLDEST, NEWEST = "1.28", "1.37"
NO_SCHEMA = {"ServersTransport"}  # Traefik's own kind
VERSION = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rendered(tool):
    """Return a function that gives an overlay's objects by kind; every kind is there once."""

    def render(overlay):
        done = tool("kubectl", "kustomize", FOLDER / "overlays" / overlay)
        assert done.returncode == 0, done.stderr
        objects = list(yaml.safe_load_all(done.stdout))
        by_kind = {one["kind"]: one for one in objects}
        assert len(by_kind) == len(objects)
        return by_kind

    every = {overlay: render(overlay) for overlay in OVERLAYS}
    return lambda overlay: copy.deepcopy(every[overlay])


@pytest.fixture(scope="module")
def judge(tool, tmp_path_factory):
    """Return a function that holds objects against the schemas of a version of Kubernetes."""

    def judge(objects, version):
        file = tmp_path_factory.mktemp("objects") / "all.yaml"
        file.write_text(yaml.safe_dump_all(objects))
        return tool("kubernetes-validate", "--strict", "-k", version, file)

    return judge


def pod(objects):
    workload = next(objects[kind] for kind in ("StatefulSet", "DaemonSet") if kind in objects)
    return workload["spec"]["template"]["spec"]


def containers(objects):
    return [*pod(objects)["initContainers"], *pod(objects)["containers"]]


def environment(objects):
    """Return the variables that the service itself is given."""
    (service,) = pod(objects)["containers"]
    return {one["name"]: one["value"] for one in service.get("env", ())}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_has_only_what_its_schema_knows(rendered, judge, version):
    objects = [one for overlay in OVERLAYS for one in rendered(overlay).values()]
    judged = [one for one in objects if one["kind"] not in NO_SCHEMA]
    assert len(objects) - len(judged) == 1
    done = judge(judged, version)
    assert done.returncode == 0, done.stdout + done.stderr


def test_this_check_sees_an_unknown_field_and_a_value_of_another_type(rendered, judge):
    misspelt, mistyped = rendered("load-balancer"), rendered("k3s-robots")
    container = pod(misspelt)["containers"][0]
    container["livenessprobe"] = container.pop("livenessProbe")
    mistyped["DaemonSet"]["spec"]["minReadySeconds"] = "60"

    assert "livenessprobe" in judge([misspelt["StatefulSet"]], NEWEST).stdout
    assert "'60' is not of type" in judge([mistyped["DaemonSet"]], NEWEST).stdout


def test_the_ingress_lets_in_the_paths_of_robots_and_no_other(rendered):
    (rule,) = rendered("ingress")["Ingress"]["spec"]["rules"]
    paths = {(one["path"], one["pathType"]) for one in rule["http"]["paths"]}
    assert paths == {(ROBOT, "Prefix"), *((path, "Exact") for path in FLEET)}
    for route in (HELLO, WHOAMI, path_of("", CHANNEL, channel="stable"),
                  path_of("", OBJECT, sha256="0" * 64)):  # fmt: skip
        assert OWN.fullmatch(ROBOT + route)
    assert not any(f"{ADMIN}/".startswith(f"{path}/") for path, _ in paths)


def test_the_ingress_knows_the_server_by_the_name_that_robots_know(rendered):
    objects = rendered("ingress")
    ingress, service = objects["Ingress"]["spec"], objects["Service"]
    name, transport = objects["ConfigMap"]["data"]["NAME"], objects["ServersTransport"]

    assert ingress["rules"][0]["host"] == name
    assert ingress["tls"][0]["hosts"] == [name]
    assert transport["spec"]["serverName"] == name
    assert service["metadata"]["annotations"] == {
        "traefik.ingress.kubernetes.io/service.serversscheme": "https",
        "traefik.ingress.kubernetes.io/service.serverstransport":
            f"{transport['metadata']['namespace']}-{transport['metadata']['name']}@kubernetescrd",
    }  # fmt: skip
    for path in ingress["rules"][0]["http"]["paths"]:
        assert path["backend"]["service"]["name"] == service["metadata"]["name"]
        assert path["backend"]["service"]["port"]["name"] == service["spec"]["ports"][0]["name"]


@pytest.mark.parametrize("overlay", ["load-balancer", "ingress"])
def test_the_port_and_the_probes_are_the_servers_own(rendered, overlay, server_dir):
    objects = rendered(overlay)
    (server,) = pod(objects)["containers"]
    settings = load_settings(server_dir.settings, {
        "FLEETLEARN_NETWORK__PORT": str(NetworkSettings().port), **environment(objects),
    })  # fmt: skip

    (port,) = server["ports"]
    assert port["containerPort"] == settings.network.port
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert server[probe]["httpGet"] == {"path": HEALTH, "port": port["name"], "scheme": "HTTPS"}
    for one in objects["Service"]["spec"]["ports"]:
        assert one["targetPort"] == port["name"]
    (rule,) = objects["NetworkPolicy"]["spec"]["ingress"]
    assert [one["port"] for one in rule["ports"]] == [port["name"]]
    assert objects["NetworkPolicy"]["spec"]["egress"] == []


def test_behind_the_ingress_one_address_may_ask_as_much_as_a_fleet(rendered, server_dir):
    usual, raised = (
        load_settings(server_dir.settings, environment(rendered(overlay))).limits
        for overlay in ("load-balancer", "ingress")
    )
    assert raised.max_connections_per_address == raised.max_connections
    assert raised.requests_per_s >= 10 * usual.requests_per_s


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_commands_are_commands_and_images_those_of_the_dockerfile(
    rendered, require_command, overlay
):
    objects = rendered(overlay)
    for container in containers(objects):
        name, version = container["image"].removeprefix("fleetlearn/").split(":")
        assert (version, f" AS {name}\n" in DOCKERFILE) == (VERSION, True)
        program = {"agent": "edge-agent", "server": "cloud-server"}[name]
        if "command" in container:  # sh -ec 'test -e FILE || program ...'
            condition, _, typed = container["args"][0].partition("||")
            assert shlex.split(condition)[:2] == ["test", "-e"]
            data = objects.get("ConfigMap", {}).get("data", {"NODE": "r1"})
            filled = re.sub(r"\$(\w+)", lambda variable: data[variable[1]], typed)  # noqa: B023
            require_command(*shlex.split(filled))
        else:
            require_command(program, *container["args"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_no_rights_and_writes_to_its_volumes_alone(rendered, overlay):
    objects = rendered(overlay)
    spec, volumes = pod(objects), re.findall(r"^VOLUME (.*)$", DOCKERFILE, re.MULTILINE)
    user = int(re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)[0])

    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == user
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(objects):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        assert len(writable) == 2
        assert writable <= {"/tmp", *volumes}
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("overlay", ["load-balancer", "ingress"])
def test_the_server_keeps_its_directory_on_a_claim(rendered, overlay):
    workload = rendered(overlay)["StatefulSet"]["spec"]
    (claim,) = workload["volumeClaimTemplates"]
    (server,) = workload["template"]["spec"]["containers"]
    (mount,) = [m for m in server["volumeMounts"] if m["name"] == claim["metadata"]["name"]]
    assert server["args"][-1].startswith(f"{mount['mountPath']}/")
    assert workload["replicas"] == 1
    # A keys' mode 0600 would become 0660 with every start.
    assert (
        workload["template"]["spec"]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    )


def test_the_probes_of_an_agent_ask_for_the_sign_of_life_that_it_gives(rendered):
    (agent,) = pod(rendered("k3s-robots"))["containers"]
    file = agent["args"][agent["args"].index("--alive") + 1]
    for probe in ("startupProbe", "livenessProbe"):
        *_, words = agent[probe]["exec"]["command"]
        found = re.fullmatch(rf'test -n "\$\(find {file} -mmin -(\d+)\)"', words)
        assert int(found[1]) * 60 > 3 * ALIVE_S


def test_an_agent_enrolls_once_by_its_nodes_name_and_its_settings_are_settings(
    rendered, server_dir, script_environment, tmp_path
):
    objects = rendered("k3s-robots")
    enroll, (agent,) = pod(objects)["initContainers"][0], pod(objects)["containers"]
    robot, kit = tmp_path / "robot", tmp_path / "kit"
    kit.mkdir()
    for file in server_dir.kit.iterdir():
        (kit / file.name).write_bytes(file.read_bytes())
    (kit / "token").write_text("abc.def\n")
    here = enroll["args"][0].replace("/var/lib/edge-agent", str(robot)).replace("/kit ", f"{kit} ")
    assert enroll["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
    for _ in range(2):  # the second finds it enrolled
        subprocess.run([*enroll["command"], here], check=True, capture_output=True,
                       env={**script_environment, "NODE": "hall-2-r1"})  # fmt: skip

    assert (robot / "token").read_text() == "abc.def\nhall-2-r1\n"
    settings = load_agent_settings(robot, environment(objects))
    mounts = {mount["mountPath"]: mount.get("readOnly") for mount in agent["volumeMounts"]}
    assert mounts[str(settings.examples.spool)] is True
    assert settings.train_when.max_load == 60
    assert settings.server.address.startswith("127.0.0.1:")
    (rule,) = objects["NetworkPolicy"]["spec"]["egress"]
    assert {NetworkSettings().port, 443, 53} == {one["port"] for one in rule["ports"]}
