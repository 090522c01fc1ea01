"""`cloud-server k8s`: five robots, of which some hang, refuse or are away; nothing is lost."""

import json
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from loopback_cluster import AnswerError, LoopbackCluster, write_kubeconfig

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "deploy" / "kubernetes" / "robot-model"
SPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: fleetlearn-robots}\n"
QUICK = ("--connect-timeout", "3", "--timeout", "60", "--retries", "1")
KEY = ("robotmodels", "fleetlearn-robots", "front-camera")


@pytest.fixture
def fleet(tmp_path):
    """Return five clusters r1 to r5; the kubeconfig has another context beside them."""
    robots = {f"r{number}": LoopbackCluster(tmp_path) for number in range(1, 6)}
    for one in robots.values():
        one.__enter__()
    parts = [one.kubeconfig(name) for name, one in robots.items()]
    office = {
        "clusters": [{"name": "office", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [],
        "contexts": [{"name": "office", "context": {"cluster": "office"}}],
    }
    robots["file"] = write_kubeconfig(tmp_path / "kubeconfig", *parts, office)
    (tmp_path / "space.yaml").write_text(SPACE)
    yield robots
    for name, one in robots.items():
        if name != "file":
            one.__exit__()


@pytest.fixture
def k8s(cloud_server, fleet):
    """Return a caller of `cloud-server k8s COMMAND ... --kubeconfig FILE`."""

    def call(command, *arguments, context=("r*",)):
        chosen = [word for one in context for word in ("--context", one)]
        return cloud_server("k8s", command, *arguments, "--kubeconfig", fleet["file"], *chosen)

    return call


@pytest.fixture
def files(tmp_path):
    return tmp_path / "space.yaml", MODELS / "crd.yaml", MODELS / "example.yaml"


def reported(cluster, ready="True", age=timedelta(), **status):
    """Let the controller have said something."""
    meta = cluster.get(*KEY)["metadata"]
    told = (datetime.now(timezone.utc) - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Ready", "status": ready, "reason": "Following", "message": "all is well",
                 "lastTransitionTime": told}  # fmt: skip
    condition |= status.pop("condition", {})
    base = {"observedGeneration": meta["generation"], "reportedAt": told, "channel": "stable"}
    cluster.set_status(*KEY, {**base, "conditions": [condition], **status})


def test_robots_that_hang_refuse_or_are_away_are_named_and_the_others_have_it(k8s, fleet, files):
    over = threading.Event()

    def broken(http):
        raise AnswerError(503, "ServiceUnavailable", "etcdserver: leader changed")

    fleet["r2"].fault = lambda http: over.wait(60)
    fleet["r3"].fault = broken
    fleet["r4"].users.clear()
    code, out, err = k8s("apply", *files, *QUICK, "--json")
    over.set()

    robots = {one["robot"]: one for one in json.loads(out)["robots"]}
    assert code == 13
    assert "3 of 5 robots did not take all of it: r2, r3, r4; the same command tries them" in err
    assert [robots[name]["ok"] for name in sorted(robots)] == [True, False, False, False, True]
    assert [one["state"] for one in robots["r5"]["objects"]] == ["created"] * 3
    assert [robots[name]["exit_code"] for name in ("r2", "r3", "r4")] == [7, 7, 6]
    assert "is silent for 3 s" in robots["r2"]["error"]
    assert "etcdserver: leader changed" in robots["r3"]["error"]
    assert "who asks is not known" in robots["r4"]["error"]
    for name in ("r1", "r5"):
        assert fleet[name].get(*KEY)["spec"]["channel"] == "stable"

    fleet["r2"].fault = fleet["r3"].fault = None
    fleet["r4"].users["admin-token"] = "admin"
    code, out, _ = k8s("apply", *files)
    assert code == 0
    assert out.count("3 created") == 3
    assert out.count("3 unchanged") == 2


def test_a_wrong_file_reaches_no_robot(k8s, fleet, files, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((MODELS / "example.yaml").read_text().replace("stable", "Stable"))
    code, out, err = k8s("apply", files[0], wrong)
    assert (code, out) == (2, "")
    assert "wrong.yaml: document 1 (RobotModel front-camera): spec.channel: expected lower" in err
    assert "nothing was sent" in err
    assert not any(fleet[f"r{number}"].requests for number in range(1, 6))


def test_robots_are_named_never_all_by_themselves(k8s, fleet, files):
    code, _, err = k8s("apply", *files, context=())
    assert code == 2
    assert "name the robots: --context NAME" in err
    assert "office, r1, r2, r3, r4, r5" in err
    code, _, err = k8s("apply", *files, context=("r1", "x*"))
    assert code == 2
    assert "--context x*: " in err
    code, out, _ = k8s("apply", *files, context=("r[12]", "r2"))
    assert code == 0
    assert "r3" not in out
    assert fleet["r3"].requests == []


def test_a_dry_run_changes_nothing(k8s, fleet, files):
    code, out, err = k8s("apply", *files, "--dry-run")
    assert code == 0
    assert out.count("2 created, 1 unknown") == 5
    assert "unknown: a robot cannot judge" in err
    assert not any(fleet[f"r{number}"].objects for number in range(1, 6))


def test_where_no_robot_answers_the_code_says_why(k8s, fleet, files):
    for number in range(1, 6):
        fleet[f"r{number}"].users.clear()
    code, _, err = k8s("apply", *files)
    assert code == 6
    assert "5 of 5 robots did not take all of it: r1, r2, r3, r4, r5" in err
    code, _, err = k8s("status", *QUICK, context=("office",))
    assert code == 7
    assert "1 of 1 robots say nothing of a model: office" in err


def test_a_conflict_names_the_field_and_the_way(k8s, fleet, files):
    k8s("apply", *files)
    theirs = {**fleet["r2"].get(*KEY), "spec": {"channel": "canary", "agent": "edge-agent"}}
    fleet["r2"].put(theirs, "somebody")
    code, out, _ = k8s("apply", *files, "--json")
    (r2,) = (one for one in json.loads(out)["robots"] if one["robot"] == "r2")
    assert code == 13
    assert '"somebody": .spec.channel; --force-conflicts takes such fields over' in r2["error"]
    assert k8s("apply", *files, "--force-conflicts")[0] == 0
    assert fleet["r2"].get(*KEY)["spec"]["channel"] == "stable"


def test_status_tells_every_robot_and_why_not(k8s, fleet, files):
    k8s("apply", *files)
    signed = {"role": "online", "keys": ["ab12cd34ef"], "rootVersion": 1}
    reported(fleet["r1"], activeVersion=7, verifiedBy=signed)
    tried = {"version": 8, "state": "refused", "reason": "accuracy 0.5"}
    refused = {"reason": "ModelRefused", "message": "version 8 is \x1b[31mrefused"}
    reported(
        fleet["r2"], "False", activeVersion=7, tried=tried, channel="canary", condition=refused
    )
    reported(fleet["r3"], age=timedelta(minutes=20), activeVersion=7)
    fleet["r5"].fault = lambda http: LoopbackCluster.send(http, 500, b"") or True

    code, out, err = k8s("status")
    assert code == 13
    assert "1 of 5 robots say nothing of a model: r5" in err
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    assert [cell.strip() for cell in rows["r1"].split("│")[1:-1]] == [
        "r1", "front-camera", "stable", "7", "online ab12cd34", "yes", "",
    ]  # fmt: skip
    assert "stable (follows canary)" in rows["r2"]
    assert "7 (8 refused)" in rows["r2"]
    assert "ModelRefused: version 8 is \\x1b[31mrefused" in rows["r2"]
    assert "unknown" in rows["r3"]
    assert "the controller is silent for 20 minutes" in rows["r3"]
    assert "the controller has not seen it yet" in rows["r4"]
    assert "answers 500" in rows["r5"]

    robots = {one["robot"]: one for one in json.loads(k8s("status", "--json")[1])["robots"]}
    (model,) = robots["r1"]["models"]
    assert (model["ready"], model["status"]["activeVersion"]) == ("yes", 7)
    assert model["status"]["verifiedBy"]["keys"] == ["ab12cd34ef"]
    assert robots["r5"]["ok"] is False


def test_a_status_of_before_the_last_change_is_not_believed(k8s, fleet, files):
    k8s("apply", *files, context=("r1",))
    reported(fleet["r1"], activeVersion=7)
    fleet["r1"].put({**fleet["r1"].get(*KEY), "spec": {"channel": "canary"}})
    _, out, _ = k8s("status", context=("r1",))
    assert "has not seen the last change" in out
    fleet["r1"].set_status(*KEY, {"conditions": 7})
    _, out, _ = k8s("status", context=("r1",))
    assert "its status cannot be read" in out


def test_a_robot_without_the_kind_and_one_without_a_model(k8s, fleet, files):
    k8s("apply", files[0], MODELS / "crd.yaml", context=("r1",))
    code, out, _ = k8s("status", context=("r1", "r2"))
    assert code == 4
    assert "has no RobotModel; apply one with" in out
    assert "knows no RobotModel; apply deploy/kubernetes/robot-model" in out


def test_ctrl_c_does_not_wait_for_a_robot_that_hangs(fleet, files):
    over, asked = threading.Event(), threading.Event()
    fleet["r1"].fault = lambda http: asked.set() or over.wait(600)
    program = Path(sys.executable).with_name("cloud-server")
    words = ["--kubeconfig", fleet["file"], "--context", "r1", "--connect-timeout", "600"]
    command = [program, "k8s", "apply", *files, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert asked.wait(240)
            process.send_signal(signal.SIGINT)
            assert process.wait(240) == 130
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
            over.set()
