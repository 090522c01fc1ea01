import json
from pathlib import Path

import pytest
import yaml
from loopback_cluster import LoopbackCluster

from edge_agent.kubernetes.in_cluster import in_cluster

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"


class Robot:
    """A cluster of one robot, its agent's state directory, and its pod's service account."""

    def __init__(self, cluster, folder):
        self.cluster, self.state = cluster, folder / "state"
        (self.state / "models").mkdir(parents=True)
        self.account = folder / "account"
        self.account.mkdir()
        (self.account / "ca.crt").write_bytes(cluster.authority.pem)
        (self.account / "namespace").write_text("fleetlearn-robots")
        (self.account / "token").write_text("controller-token\n")
        cluster.users["controller-token"] = "controller"
        cluster.roles["controller"] = None
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fleetlearn-robots"}}
        cluster.put(space)
        cluster.put(yaml.safe_load((FOLDER / "robot-model" / "crd.yaml").read_text()))

    def connection(self):
        port = self.cluster.url.rpartition(":")[2]
        environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
        return in_cluster(self.account, environment)

    def wants(self, channel="stable", name="front", **spec):
        meta = {"name": name, "namespace": "fleetlearn-robots"}
        spec = {"channel": channel, "agent": "edge-agent", **spec}
        self.cluster.put({"apiVersion": "robots.fleetlearn/v1alpha1", "kind": "RobotModel",
                          "metadata": meta, "spec": spec})  # fmt: skip

    def deploys(self, name="edge-agent", robots=1):
        daemon_set = yaml.safe_load((FOLDER / "robot" / "agent.yaml").read_text())
        daemon_set["metadata"] = {"name": name, "namespace": "fleetlearn-robots"}
        self.cluster.put(daemon_set)
        self.rolls_out(name, robots)

    def rolls_out(self, name="edge-agent", robots=1):
        """As the cluster's own controller says when the pods are as they should be."""
        generation = self.cluster.get("daemonsets", "fleetlearn-robots", name)["metadata"][
            "generation"
        ]
        self.cluster.set_status("daemonsets", "fleetlearn-robots", name, {
            "observedGeneration": generation, "desiredNumberScheduled": robots,
            "updatedNumberScheduled": robots, "numberReady": robots,
        })  # fmt: skip

    def writes(self, **status):
        """As the agent does."""
        base = {"name": "r1", "site": "hall", "state": "idle", "channel": "stable"}
        (self.state / "status.json").write_text(json.dumps({**base, **status}))

    def model(self, name="front"):
        return self.cluster.get("robotmodels", "fleetlearn-robots", name)

    def daemon_set(self, name="edge-agent"):
        return self.cluster.get("daemonsets", "fleetlearn-robots", name)

    def variables(self, name="edge-agent"):
        (container,) = self.daemon_set(name)["spec"]["template"]["spec"]["containers"]
        return {one["name"]: one["value"] for one in container.get("env", ())}

    def said(self, kind="Ready", name="front"):
        (one,) = (c for c in self.model(name)["status"]["conditions"] if c["type"] == kind)
        return one["status"], one["reason"], one.get("message", "")


@pytest.fixture
def robot(tmp_path):
    with LoopbackCluster(tmp_path) as cluster:
        yield Robot(cluster, tmp_path)
