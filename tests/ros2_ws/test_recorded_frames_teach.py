"""The whole circle: camera -> recorder -> spool -> examples -> a round -> new model -> perception.

ROS nodes run in this test's environment; server and agent in the project's own, as everywhere else.
"""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from free_ports import free_port
from ros_robot import until

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy", reason="needs ROS 2: `make test-ros`")

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/bin/python"
FRAMES, CAMERA = 60, "/camera/image"
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "FLEETLEARN_ROUNDS__QUORUM": "1",
    "FLEETLEARN_TRAINING__EPOCHS": "2",
    # One round on 60 frames: whether the model is better is not what this is about.
    "FLEETLEARN_GATE__PUBLISH": "always",
    "EDGE_AGENT_INSTALL__EXAMPLES": "0",
    "EDGE_AGENT_INSTALL__SLOWER": "1000",
    "EDGE_AGENT_INSTALL__PROBATION_S": "0",
    "EDGE_AGENT_EXAMPLES__HELD_OUT": "0",
    "EDGE_AGENT_STORE__SETTLE_S": "0.5",
    "EDGE_AGENT_STORE__RATE_HZ": "100",
    "EDGE_AGENT_STORE__MIN_SHARPNESS": "0",
}


class Fleet:
    """A server and one robot's agent, by the commands that a person types."""

    def __init__(self, folder):
        self.server, self.robot = folder / "server", folder / "robot"
        self.spool, self._folder = folder / "spool", folder
        self.spool.mkdir()
        self._processes = {}

    def type(self, *words):
        module = {"edge-agent": "edge_agent", "cloud-server": "cloud_server"}[words[0]]
        command = [PYTHON, "-m", module, *map(str, words[1:])]
        done = subprocess.run(
            command, env={**os.environ, **SETTINGS}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name, *words):
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [PYTHON, "-m", *map(str, words)],
                env={**os.environ, **SETTINGS},
                stdout=log,
                stderr=log,
            )

    def logs(self):
        return {n: (self._folder / f"{n}.log").read_text()[-1500:] for n in self._processes}

    def status(self):
        file = self.robot / "state/status.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def close(self):
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(60)
            finally:
                process.kill()


@pytest.fixture
def fleet(tmp_path):
    if not PYTHON.exists():
        pytest.skip("needs the project's own environment: `make setup`")
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.close()


@pytest.fixture
def bag(tmp_path):
    """Return a bag of labelled pictures that differ, as datasets/README.md makes them."""
    script = ROOT / "datasets/robot_camera.py"
    words = ["--robots", "hall/r1", "--frames", str(FRAMES), "--prior", "uniform", "--seed", "2"]
    subprocess.run([PYTHON, script, tmp_path / "bags", *words], check=True, capture_output=True)
    return tmp_path / "bags/hall/r1"


def test_what_the_recorder_keeps_becomes_the_model_that_answers(fleet, bag, processes, listener):
    from edge_perception_msgs.msg import ModelInfo, RecorderStatus
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from vision_msgs.msg import Classification

    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    infos = listener.collect(ModelInfo, "/perception/model_info", latched)
    results = listener.collect(Classification, "/perception/classification")
    recorded = listener.collect(RecorderStatus, "/frame_recorder/status")

    labels = "circle,square,star,triangle"
    options = ("--backbone", "mobilenet-v2-035", "--port", free_port())
    fleet.type("cloud-server", "init", fleet.server, "--labels", labels, *options)
    fleet.start("server", "cloud_server", "start", fleet.server)
    enroll = ("enroll", fleet.server / "kit", "--dir", fleet.robot, "--spool", fleet.spool)
    fleet.type("edge-agent", *enroll)
    key = fleet.robot / "robot.pub"
    fleet.type("cloud-server", "robots", "add", fleet.server, "r1", "--site", "hall", "--key", key)
    fleet.start("agent", "edge_agent", "run", "--config", fleet.robot / "agent.toml")
    until(lambda: fleet.status().get("active_version") == 0, fleet.logs)

    remap = ("-r", f"image:={CAMERA}")
    model = fleet.robot / "state/models/current"
    given = {"model": model, "transport": "compressed"}
    perception = processes.node("perception_node", *remap, parameters=given.items())
    given = {"spool": fleet.spool, "rate_hz": 100.0, "label_topics": "[/camera/label]"}
    recorder = processes.node("frame_recorder_node", *remap, parameters=given.items())
    camera = processes.command([Path(__file__).with_name("publish_labelled.py"), bag, 15, 2])
    until(lambda: "published\n" in camera.log, lambda: (camera.log, perception.log, recorder.log))
    until(lambda: recorded and recorded[-1].frames_written == FRAMES, lambda: recorded[-1:])
    recorder.send_signal(signal.SIGTERM)
    assert recorder.wait(240) == 0, recorder.log

    until(lambda: fleet.status().get("examples", 0), fleet.logs)
    ingest = fleet.status()["ingest"]
    assert ingest["frames"] == FRAMES
    assert (ingest["damage"], "without a label" in ingest["dropped"]) == ({}, False)
    assert ingest["kept"] > FRAMES // 2
    run = json.loads(
        fleet.type("cloud-server", "train", fleet.server, "--rounds", 1, "--json").splitlines()[-1]
    )
    (outcome,) = run["closed"][0]["robots"]
    assert (outcome["name"], outcome["outcome"]) == ("r1", "accepted")
    until(
        lambda: [info.version for info in infos] == [0, 1], lambda: (fleet.logs(), perception.log)
    )

    before, again = len(results), (bag, 15, 1)
    camera.stdin.close()
    camera.wait(240)
    processes.command([Path(__file__).with_name("publish_labelled.py"), *again])
    until(lambda: len(results) > before, lambda: perception.log)
    assert {one.class_id for one in results[-1].results} == set(labels.split(","))
