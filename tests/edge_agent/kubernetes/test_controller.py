"""The controller and a loopback cluster: settings reach the agent, and its words the cluster."""

import threading
import time

import pytest

from edge_agent.kubernetes import controller as module
from edge_agent.kubernetes.controller import Controller
from fleet_model.errors import UpdateError
from fleet_model.kubernetes.api import Cluster

PATIENCE_S = 60.0


@pytest.fixture
def look(robot):
    """Return a function that lets a controller look once."""
    connection, namespace = robot.connection()
    made = Controller(connection, namespace, robot.state)
    with Cluster(connection) as cluster:
        yield lambda: made.look(cluster)


def writes_of(robot):
    return [one for one in robot.cluster.requests if one[0] == "PATCH"]


def test_the_channel_reaches_the_agent_and_its_words_the_cluster(robot, look):
    robot.deploys()
    robot.wants("canary", engine={"precision": "int8", "runtime": "auto"})
    robot.writes(channel="stable", active_version=3)
    look()
    assert robot.variables() == {
        "EDGE_AGENT_SERVER__CHANNEL": "canary", "EDGE_AGENT_ENGINE__PRECISION": "int8",
        "EDGE_AGENT_ENGINE__RUNTIME": "auto",
    }  # fmt: skip
    assert robot.said("Applied")[:2] == ("True", "Applied")
    assert robot.said() == ("False", "RollingOut", "the agent is about to be restarted")

    robot.rolls_out()
    look()
    assert robot.said() == ("False", "RollingOut", "the agent still follows channel stable")
    robot.writes(channel="canary", active_version=7)
    look()
    assert robot.said() == ("True", "Following", "runs version 7 of channel canary")
    status = robot.model()["status"]
    assert (status["observedGeneration"], status["activeVersion"]) == (1, 7)
    assert (status["robot"], status["site"], status["channel"]) == ("r1", "hall", "canary")


def test_what_is_as_it_should_be_is_not_written_again(robot, look, monkeypatch):
    robot.deploys()
    robot.wants()
    robot.writes(active_version=7)
    look()
    robot.rolls_out()
    look()
    before = len(writes_of(robot))
    for _ in range(5):
        look()
    assert len(writes_of(robot)) == before
    monkeypatch.setattr(module, "REPORT_S", 0.0)
    look()
    assert len(writes_of(robot)) == before + 1


def test_without_its_robot_model_the_agent_goes_back_to_its_file(robot, look):
    robot.deploys()
    robot.wants("canary", engine={"precision": "int8", "runtime": "auto"})
    look()
    robot.wants("canary")
    look()
    assert robot.variables() == {"EDGE_AGENT_SERVER__CHANNEL": "canary"}
    robot.cluster.delete("robotmodels", "fleetlearn-robots", "front")
    look()
    assert robot.variables() == {}
    assert not robot.daemon_set()["metadata"].get("annotations")
    assert robot.daemon_set()["spec"]["template"]["spec"]["containers"][0]["image"]
    before = len(writes_of(robot))
    look()
    assert len(writes_of(robot)) == before


def test_a_daemon_set_of_somebody_else_is_never_touched(robot, look):
    robot.deploys("other")
    robot.deploys()
    before = robot.daemon_set("other")
    robot.wants()
    look()
    assert robot.daemon_set("other") == before


def test_an_agent_that_is_not_there_or_not_one(robot, look):
    robot.wants()
    look()
    words = "there is no DaemonSet edge-agent in this namespace"
    assert robot.said() == robot.said("Applied") == ("False", "NoAgent", words)
    robot.deploys(robots=3)
    look()
    assert robot.said("Applied")[1] == "SeveralRobots"
    assert robot.variables() == {}
    robot.rolls_out(robots=0)
    look()
    assert robot.said()[1] == "RollingOut"  # of the change
    robot.rolls_out(robots=0)
    look()
    assert robot.said()[1] == "NoRobot"


def test_of_two_robot_models_the_older_counts(robot, look):
    robot.deploys()
    robot.wants("canary", name="another")
    robot.wants("stable")
    robot.cluster.objects["robotmodels", "fleetlearn-robots", "front"]["metadata"][
        "creationTimestamp"
    ] = "2020-01-01T00:00:00Z"
    look()
    assert robot.variables() == {"EDGE_AGENT_SERVER__CHANNEL": "stable"}
    assert robot.said(name="another")[:2] == ("False", "AnotherModel")
    assert "RobotModel front has agent edge-agent" in robot.said(name="another")[2]


def test_a_robot_model_of_a_newer_kind_leaves_the_agent_as_it_is(robot, look):
    robot.deploys()
    robot.wants("canary")
    look()
    schema = robot.cluster.schemas["RobotModel"]["properties"]["spec"]
    schema["properties"]["pinned"] = {"type": "integer"}
    robot.wants("stable", pinned=7)
    look()
    assert robot.variables() == {"EDGE_AGENT_SERVER__CHANNEL": "canary"}
    assert robot.said("Applied")[1] == "NotUnderstood"


def test_a_variable_that_somebody_else_has_set_is_theirs(robot, look):
    robot.deploys()
    daemon_set = robot.daemon_set()
    container = daemon_set["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "EDGE_AGENT_SERVER__CHANNEL", "value": "theirs"}]
    robot.cluster.put(daemon_set, "kubectl")
    robot.wants()
    look()
    status, reason, words = robot.said("Applied")
    assert (status, reason) == ("False", "FieldConflict")
    assert 'conflict with "kubectl"' in words
    assert robot.variables() == {"EDGE_AGENT_SERVER__CHANNEL": "theirs"}


def test_a_daemon_set_that_took_anothers_place_is_not_changed(robot, look):
    robot.deploys()
    robot.wants()
    stale = robot.daemon_set()

    def replaced(http):
        if http.command == "PATCH" and "daemonsets" in http.path:
            robot.cluster.objects["daemonsets", "fleetlearn-robots", "edge-agent"] = {
                **stale, "metadata": {**stale["metadata"], "uid": "another"},
            }  # fmt: skip
        return False

    robot.cluster.fault = replaced
    look()
    assert robot.said("Applied")[0] == "False"
    assert robot.variables() == {}


def test_a_cluster_without_the_kind(robot, look):
    robot.cluster.kinds = [one for one in robot.cluster.kinds if one[3] != "RobotModel"]
    with pytest.raises(UpdateError, match="apply deploy/kubernetes/robot-model"):
        look()


def until(what, done):
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.fixture
def running(robot, tmp_path, monkeypatch):
    """Start a controller that looks every hour: what it sees sooner, the watch told."""
    monkeypatch.setattr(module, "LOOK_S", 3600.0)
    connection, namespace = robot.connection()
    made = Controller(connection, namespace, robot.state, tmp_path / "alive")
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def channel(robot):
    return robot.variables().get("EDGE_AGENT_SERVER__CHANNEL")


def test_a_change_is_seen_at_once_also_after_the_watch_was_cut_and_compacted(
    robot, running, tmp_path
):
    robot.deploys()
    robot.wants("stable")
    until("the first", lambda: channel(robot) == "stable")
    until("a sign of life", (tmp_path / "alive").exists)

    gone = []

    def cut(http):  # every watch from now on is too old, once
        if "watch=true" in http.path and not gone:
            gone.append(True)
            robot.cluster.compact()
        return False

    robot.cluster.fault = cut
    with robot.cluster.changed:  # end the watch that is open
        robot.cluster.stopping = True
        robot.cluster.changed.notify_all()
    until("another watch", lambda: gone)
    robot.cluster.stopping = False
    robot.wants("canary")
    until("the change", lambda: channel(robot) == "canary")
    until("its status", lambda: "status" in robot.model())
    robot.wants("beta")
    until("what the new watch tells", lambda: channel(robot) == "beta")


def test_a_cluster_that_is_away_is_asked_again(robot, running):
    robot.deploys()
    away = threading.Event()
    away.set()
    robot.cluster.fault = lambda http: (
        away.is_set() and robot.cluster.send(http, 503, b"{}") is None
    )
    robot.wants("stable")
    until("it was asked", lambda: len(robot.cluster.requests) > 3)
    away.clear()
    until("it is back", lambda: channel(robot) == "stable")
