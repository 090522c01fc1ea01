"""A pod finds its API by variables and its service account, or says what is missing."""

import pytest

from edge_agent.kubernetes.in_cluster import in_cluster
from fleet_model.errors import SettingsError
from fleet_model.kubernetes.api import Cluster

HERE = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_the_account_opens_the_api_also_after_its_token_changed(robot):
    connection, namespace = robot.connection()
    assert namespace == "fleetlearn-robots"
    with Cluster(connection) as cluster:
        assert cluster.version()
        del robot.cluster.users["controller-token"]
        robot.cluster.users["another"] = "controller"
        (robot.account / "token").write_text("another\n")
        assert cluster.version()
    assert {one[2] for one in robot.cluster.requests} == {"controller"}


def test_an_address_of_ipv6(robot):
    connection, _ = in_cluster(robot.account, {**HERE, "KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert connection.server == "https://[fd00::1]:443"


def test_what_is_no_pod_or_has_no_account(robot, tmp_path):
    with pytest.raises(SettingsError, match=r"KUBERNETES_SERVICE_HOST and .* runs in a pod"):
        in_cluster(robot.account, {})
    with pytest.raises(SettingsError, match=r"No such file.*; the pod needs a service account"):
        in_cluster(tmp_path / "none", HERE)
    (robot.account / "ca.crt").write_text("none")
    with pytest.raises(SettingsError, match="no certificate in PEM"):
        in_cluster(robot.account, HERE)
