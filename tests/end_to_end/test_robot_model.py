"""A RobotModel, its controller, a real agent and a real server; only the kubelet is the test's."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from loopback_cluster import LoopbackCluster

from cloud_server.robots.register import Register
from cloud_server.signing.signing import offer
from cloud_server.state.model_store import DirectoryStore
from edge_agent.cli.enroll import enroll
from edge_agent.kubernetes import controller as module
from edge_agent.kubernetes.controller import Controller
from edge_agent.kubernetes.in_cluster import in_cluster
from edge_agent.robot.settings import ExampleSettings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
SPACE, AGENT, MODEL = "fleetlearn-robots", "edge-agent", "front-camera"
PATIENCE_S = 240.0

pytestmark = pytest.mark.slow


class Kubelet:
    """Runs the agent as the DaemonSet says: another template is another process."""

    def __init__(self, cluster, robot):
        self.cluster, self.robot = cluster, robot
        self.process, self.template, self.log = None, None, (robot / "agent.log").open("wb")

    def look(self):
        daemon_set = self.cluster.get("daemonsets", SPACE, AGENT)
        template = daemon_set["spec"]["template"]
        if template == self.template and self.process.poll() is None:
            return
        self.end()
        (container,) = template["spec"]["containers"]
        variables = {one["name"]: one["value"] for one in container.get("env", ())}
        command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", self.robot]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "EDGE_AGENT_POLL__IDLE_S": "0.2",
                       "EDGE_AGENT_INSTALL__PROBATION_S": "0", **variables}  # fmt: skip
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)
        self.template = template
        self.cluster.set_status("daemonsets", SPACE, AGENT, {
            "observedGeneration": daemon_set["metadata"]["generation"],
            "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberReady": 1,
        })  # fmt: skip

    def end(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)


@pytest.fixture
def robot(running_server, tmp_path):
    directory = tmp_path / "robot"
    line = enroll(running_server.server_dir.kit, directory, ExampleSettings(), train=False)
    Register(running_server.server_dir.robots).add("r1", "hall", line)
    return directory


@pytest.fixture
def cluster(robot, tmp_path, monkeypatch):
    """A cluster with the agent's DaemonSet, kept by a kubelet and the controller."""
    monkeypatch.setattr(module, "LOOK_S", 0.5)
    with LoopbackCluster(tmp_path) as cluster:
        cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        cluster.put(yaml.safe_load((FOLDER / "robot-model" / "crd.yaml").read_text()))
        daemon_set = yaml.safe_load((FOLDER / "robot" / "agent.yaml").read_text())
        daemon_set["metadata"]["namespace"] = SPACE
        cluster.put(daemon_set)
        account = tmp_path / "account"
        account.mkdir()
        for name, content in (("token", "admin-token"), ("namespace", SPACE)):
            (account / name).write_text(content)
        (account / "ca.crt").write_bytes(cluster.authority.pem)
        port = cluster.url.rpartition(":")[2]
        here = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
        controller = Controller(*in_cluster(account, here), robot / "state")
        thread = threading.Thread(target=controller.run)
        thread.start()
        cluster.kubelet = Kubelet(cluster, robot)
        try:
            yield cluster
        finally:
            cluster.kubelet.end()
            controller.stop()
            thread.join(PATIENCE_S)


def wants(cluster, channel):
    example = yaml.safe_load((FOLDER / "robot-model" / "example.yaml").read_text())
    example["spec"] = {"channel": channel, "agent": AGENT}
    before = cluster.get("robotmodels", SPACE, MODEL)
    cluster.put({**example, "status": before["status"]} if before else example)


def until_said(cluster, *expected):
    """Let the kubelet work until the RobotModel says this: ready, reason, words."""
    end, said = time.monotonic() + PATIENCE_S, None
    while said != expected:
        log = cluster.kubelet.robot / "agent.log"
        assert time.monotonic() < end, f"{said}\n{log.read_text()[-2000:] if log.exists() else ''}"
        cluster.kubelet.look()
        time.sleep(0.1)
        status = cluster.get("robotmodels", SPACE, MODEL).get("status", {})
        ready = [one for one in status.get("conditions", ()) if one["type"] == "Ready"]
        said = next(((c["status"], c["reason"], c.get("message", "")) for c in ready), None)
    return status


def test_an_agent_changes_its_channel_and_the_cluster_knows_who_signed(running_server, cluster):
    server_dir = running_server.server_dir
    DirectoryStore(server_dir.store).reissue(1, 2, "2026-01-01T00:00:00")
    offer(server_dir, "canary", 2)
    wants(cluster, "stable")
    status = until_said(cluster, "True", "Following", "runs version 1 of channel stable")
    assert (status["robot"], status["site"]) == ("r1", "hall")
    assert (status["verifiedBy"]["role"], status["verifiedBy"]["rootVersion"]) == ("online", 1)
    assert status["engine"].startswith("LiteRT ")
    first = cluster.kubelet.process.pid

    wants(cluster, "canary")
    status = until_said(cluster, "True", "Following", "runs version 2 of channel canary")
    assert cluster.kubelet.process.pid != first
    assert status["observedGeneration"] == 2
    assert status["tried"] == {"version": 2, "state": "confirmed"}

    wants(cluster, "nobodys")
    words = "nothing from channel nobodys yet; version 2 of another one stays in use"
    until_said(cluster, "False", "NotInstalled", f"runs version 2; newest: {words}")
