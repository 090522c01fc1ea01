"""deploy/kubernetes/overlays/vision-language: a server and desks, judged and held to the product.

No cluster was there: nothing was applied, and nobody attached to the job.
"""

import copy
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from cloud_server.state.settings import NetworkSettings
from edge_agent.agent.service import ALIVE_S

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / "deploy" / "kubernetes" / "overlays" / "vision-language"
DOCKERFILE = (ROOT / "deploy" / "docker" / "torch.Dockerfile").read_text()
VERSION = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
ENOUGH = 13  # `edge-agent collect`: something was damaged or missing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rendered(tool):
    """Return a function that gives the objects by kind and name."""
    done = tool("kubectl", "kustomize", OVERLAY)
    assert done.returncode == 0, done.stderr
    every = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(done.stdout)}
    return lambda: copy.deepcopy(every)


def pod(objects, kind, name):
    return objects[kind, name]["spec"]["template"]["spec"]


def containers(objects):
    found = {}
    for kind, name in (("StatefulSet", "desk"), ("StatefulSet", "cloud-server"), ("Job", "upload")):
        spec = pod(objects, kind, name)
        for one in [*spec.get("initContainers", ()), *spec["containers"]]:
            found[f"{name}/{one['name']}"] = one
    return found


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_every_object_has_only_what_its_schema_knows(rendered, tool, tmp_path, version):
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(rendered().values()))
    done = tool("kubernetes-validate", "--strict", "-k", version, file)
    assert done.returncode == 0, done.stdout + done.stderr
    misspelt = rendered()["Job", "upload"]
    misspelt["spec"]["backOffLimit"] = misspelt["spec"].pop("backoffLimit")
    file.write_text(yaml.safe_dump(misspelt))
    assert "backOffLimit" in tool("kubernetes-validate", "--strict", "-k", version, file).stdout


def test_commands_are_commands_and_images_those_of_the_dockerfile(rendered, require_command):
    objects, typed = rendered(), []
    (config,) = (one for (kind, _), one in objects.items() if kind == "ConfigMap")
    given = {**config["data"], "DESK": "desk-0"}
    for container in containers(objects).values():
        assert container["image"] == f"fleetlearn/torch:{VERSION}"
        assert " AS torch\n" in DOCKERFILE
        words = [*container.get("command", ["cloud-server"]), *container.get("args", ())]
        if words[:2] == ["sh", "-ec"]:
            script = re.sub(r"\$(\w+)", lambda variable: given[variable[1]], words[2])
            (words,) = (
                shlex.split(part)
                for part in script.split("||")
                if part.split()[0] in ("cloud-server", "edge-agent")
            )
        typed.append(words)
    assert sorted(words[0] for words in typed) == [
        *["cloud-server"] * 2,
        *["edge-agent"] * 3,
        "tar",
    ]
    for words in typed:
        if words[0] != "tar":
            require_command(*words)
    init = next(words for words in typed if "init" in words)
    assert init[init.index("--workload") + 1] == "vision-language"


def test_a_pod_has_no_rights_and_what_it_reads_it_cannot_write(rendered):
    objects = rendered()
    user = int(re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)[0])
    for kind, name in (("StatefulSet", "desk"), ("StatefulSet", "cloud-server"), ("Job", "upload")):
        spec = pod(objects, kind, name)
        assert spec["automountServiceAccountToken"] is False
        security = spec["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, user)
        assert security["fsGroupChangePolicy"] == "OnRootMismatch"
    for name, container in containers(objects).items():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
        own = "/var/lib/cloud-server" if "cloud-server/" in name else "/var/lib/edge-agent"
        assert writable == ({"/exports"} if name == "upload/upload" else {"/tmp", own})


def test_a_desk_sees_its_own_exports_alone_and_asks_its_server_alone(rendered):
    objects = rendered()
    collect = containers(objects)["desk/collect"]
    (mount,) = (one for one in collect["volumeMounts"] if one["name"] == "exports")
    assert mount["subPathExpr"] == "$(DESK)"
    assert collect["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert not any(
        one["name"] == "exports" for one in containers(objects)["desk/edge-agent"]["volumeMounts"]
    )
    policy = objects["NetworkPolicy", "desk"]["spec"]
    (rule,) = policy["egress"]
    assert policy["ingress"] == []
    assert {one["port"] for one in rule["ports"]} == {NetworkSettings().port, 53}
    upload = objects["NetworkPolicy", "upload"]["spec"]
    assert (upload["ingress"], upload["egress"]) == ([], [])


def test_the_probes_ask_for_the_sign_of_life_that_the_agent_gives(rendered):
    agent = containers(rendered())["desk/edge-agent"]
    file = agent["command"][agent["command"].index("--alive") + 1]
    for probe in ("startupProbe", "livenessProbe"):
        *_, words = agent[probe]["exec"]["command"]
        found = re.fullmatch(rf'test -n "\$\(find {file} -mmin -(\d+)\)"', words)
        assert int(found[1]) * 60 > 3 * ALIVE_S


def test_an_archive_is_unpacked_and_collected_and_damage_does_not_keep_a_desk_from_starting(
    rendered, script_environment, tmp_path
):
    found = containers(rendered())
    upload, collect = found["upload/upload"], found["desk/collect"]
    posts = [{"text": "a robot"}, {"text": "another one", "photo": "gone.png"}]
    (tmp_path / "here" / "desk-0").mkdir(parents=True)
    (tmp_path / "here" / "desk-0" / "posts.json").write_text(json.dumps(posts))
    exports, state = tmp_path / "exports", tmp_path / "state"
    exports.mkdir()
    packed = subprocess.run(
        ["tar", "-c", "desk-0"], cwd=tmp_path / "here", check=True, capture_output=True
    )
    unpack = [word.replace("/exports", str(exports)) for word in upload["command"]]
    subprocess.run(unpack, input=packed.stdout, check=True)
    script = collect["args"][0].replace("/exports", str(exports / "desk-0"))
    typed = script.replace("/var/lib/edge-agent", str(state))
    alone = typed.partition("||")[0]
    asked = {"capture_output": True, "env": script_environment}
    assert subprocess.run(["sh", "-ec", alone], check=False, **asked).returncode == ENOUGH
    subprocess.run([*collect["command"], typed], check=True, **asked)
    rows = (state / "records" / "records.jsonl").read_text().splitlines()
    assert [json.loads(row)["text"] for row in rows] == ["a robot"]
    (exports / "desk-0" / "posts.json").unlink()  # nothing was uploaded: the desk waits
    assert subprocess.run([*collect["command"], typed], check=False, **asked).returncode != 0
