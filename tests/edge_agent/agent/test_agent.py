"""The agent as the process that systemd runs, against a real server."""

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from free_ports import free_port

sys.path.append(str(Path(__file__).parents[1] / "models"))
import moody_workload
from moody_workload import TINY

from cloud_server.robots.register import Register
from cloud_server.state.model_store import DirectoryStore
from edge_agent.agent.agent import Agent
from edge_agent.agent.status import read_status
from edge_agent.cli.enroll import enroll
from edge_agent.labeling.answer import LABEL, Answer
from edge_agent.labeling.answers import Answers
from edge_agent.labeling.frames import KeptFrames
from edge_agent.link.news import News
from edge_agent.models.deploy import Models
from edge_agent.models.trials import TrialFile, Trials, Tried
from edge_agent.robot.pause import pause, resume
from edge_agent.robot.settings import ExampleSettings, load_settings
from fleet_model import __version__
from fleet_model.errors import BundleError, ConnectionFailed, RefusedError
from fleet_model.protocol.proof import fingerprint
from fleet_model.protocol.report import unpack_report
from fleet_model.protocol.trial import TrialOutcome
from fleet_model.protocol.version import PROTOCOL

ENDLESS = {"FLEETLEARN_TRAINING__EPOCHS": "1000000"}


class Robot:
    """An agent process on the directory of its agent.toml."""

    def __init__(self, config, **environment):
        self.config, self.state = config, config.parent / "state"
        self.log = config.parent / "agent.log"
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "EDGE_AGENT_POLL__IDLE_S": "0.2"}
        self.environment |= environment
        self.process = None

    def start(self):
        with suppress(OSError):
            (self.state / "status.json").unlink()  # of the process before
        command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(self.config)]
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(command, env=self.environment, stderr=stream)
        return self

    def status(self):
        return read_status(self.state)

    def wait(self, **expected):
        """Wait until the status says so; return it."""
        return self.wait_until(
            lambda status: {name: status.get(name) for name in expected} == expected
        )

    def wait_until(self, holds, seconds=300):
        end = time.monotonic() + seconds
        while not holds(status := self.status()):
            assert self.process.poll() is None, f"it has ended:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"{status}\n{self.log.read_text()}"
            time.sleep(0.05)
        return status

    def terminate(self):
        """Return the exit code; it waits for nothing that may be endless."""
        self.process.terminate()
        return self.process.wait(240)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def calls(self, port):
        """Return whether it has a connection to that port, or asks for one."""
        connections = psutil.Process(self.process.pid).net_connections()
        return any(one.raddr and one.raddr.port == port for one in connections)

    def children(self, module):
        """Return the child processes that run a module; one verifies signatures now and then."""
        command = ["pgrep", "-P", str(self.process.pid), "-f", module]
        pids = subprocess.run(command, capture_output=True, text=True, check=False)
        return [int(pid) for pid in pids.stdout.split()]


@pytest.fixture
def robots():
    """Return a maker of robots; all are killed at the end."""
    made = []

    def make(config, **environment):
        made.append(Robot(config, **environment))
        return made[-1]

    yield make
    for robot in made:
        robot.kill()


@pytest.fixture
def labelled(image_folder):
    """Frames that the tiny bundle's trainer can learn from."""
    return image_folder("frames", {"circle": 40, "square": 40, "star": 40})


def ended_cleanly(robot):
    assert robot.terminate() == 0, robot.log.read_text()
    assert robot.status()["state"] == "stopped"
    assert "Traceback" not in robot.log.read_text()
    return True


# ------------------------------------------------------------------------------- a good day


def test_a_robot_joins_installs_stays_lean_and_ends_on_sigterm(
    shared_server, robots, tmp_path, labelled
):
    config = shared_server.admit(tmp_path / "r1", "r1", train=True, examples=(labelled,))
    robot = robots(config).start()
    status = robot.wait(active_version=1, state="idle")
    assert status["runtime"]["asked"] == "auto"
    assert [one["accelerator"] for one in status["runtime"]["measured"]] == ["cpu"]
    assert (status["name"], status["site"], status["trainer"]) == ("r1", "hall", "litert")
    assert status["publishes"][0]["version"] == 1
    assert status["framework_loaded"] is False
    shared_server.wait_until(lambda: shared_server.online() == {"r1"})
    loaded = Path(f"/proc/{robot.process.pid}/maps").read_text()
    heavy = [n for n in ("tensorflow", "cv2", "ai_edge_litert", "rosbags", "keras") if n in loaded]
    assert heavy == []
    assert Models(robot.state / "models").active("fp32").manifest.version == 1
    assert ended_cleanly(robot)
    assert shared_server.online() == set()  # robots that follow only take no part


@pytest.mark.slow
def test_a_round_is_trained_in_a_child_and_remembered(server, robots, tmp_path, labelled):
    server.start()
    config = server.admit(tmp_path / "r1", train=True, examples=(labelled,))
    robot = robots(config).start()
    robot.wait(active_version=1, state="idle")
    server.wait_until(lambda: server.online() == {"r1"})
    run = server.start_run()
    server.wait_until(lambda: server.closed(run))
    assert [r["outcome"] for r in server.closed(run)["robots"]] == ["accepted"]
    status = robot.wait_until(
        lambda status: status.get("rounds") and "bytes_up" in status["rounds"][0]
    )
    record = status["rounds"][0]
    assert (record["run"], record["round"]) == (run, 1)
    assert record["num_examples"] == server.closed(run)["robots"][0]["num_examples"] > 60
    assert 0 < record["bytes_up"] < 10_000
    assert record["trainer_bytes"] > 5000  # trainer.json and trainer.tflite, not the trunk
    assert (status["state"], status["framework_loaded"]) == ("idle", False)
    assert status["peak_mb"] > 0


def test_new_bags_in_the_spool_are_taken_in_beside_the_loop(shared_server, robots, tmp_path, bags):
    (tmp_path / "spool").mkdir()
    examples = ExampleSettings(spool=tmp_path / "spool", label_topic=bags.LABELS)
    config = shared_server.admit(tmp_path / "r7", "r7", train=True, settings=examples)
    robot = robots(
        config, EDGE_AGENT_STORE__SETTLE_S="0.2", EDGE_AGENT_STORE__MIN_SHARPNESS="0"
    ).start()
    robot.wait(active_version=1, state="idle")
    for name, labels in (("monday", ["star", "circle"]), ("tuesday", ["star", ""])):
        start_ns = bags.START_NS + len(name) * 10**12
        bags.drive(tmp_path / "spool" / name, labels, start_ns=start_ns)
        robot.wait_until(
            lambda status, name=name: (
                status.get("ingest", {}).get("recordings", 0)
                == ("monday", "tuesday").index(name) + 1
            )
        )
    ingest = robot.status()["ingest"]
    assert ingest["frames"] == 4
    assert ingest["kept"] + sum(ingest["dropped"].values()) == 4
    assert ingest["examples"] == ingest["kept"] > 0
    loaded = Path(f"/proc/{robot.process.pid}/maps").read_text()
    assert [n for n in ("cv2", "ai_edge_litert", "rosbags", "tensorflow") if n in loaded] == []
    assert ended_cleanly(robot)
    again = robots(config).start().wait_until(lambda status: status.get("ingest"))
    assert again["ingest"] == ingest  # from the store, whatever the spool holds


@pytest.mark.slow
def test_a_robot_with_nothing_but_a_spool_trains_on_what_came_in(server, robots, tmp_path, bags):
    server.start()
    (tmp_path / "spool").mkdir()
    examples = ExampleSettings(spool=tmp_path / "spool", label_topic=bags.LABELS)
    config = server.admit(tmp_path / "r1", train=True, settings=examples)
    settle = {"EDGE_AGENT_STORE__SETTLE_S": "0.2", "EDGE_AGENT_STORE__MIN_SHARPNESS": "0"}
    robot = robots(config, **settle).start()
    server.wait_until(lambda: server.online() == {"r1"})
    run = server.start_run()
    server.wait_until(lambda: server.failure(run))
    assert "no examples to train on" in server.failure(run)
    messages = []
    for index, label in enumerate(["circle", "square", "star"] * 20):
        stamp = bags.START_NS + index * 10**9
        picture = np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)
        content = cv2.imencode(".jpg", picture)[1].tobytes()
        messages.append((bags.CAMERA, stamp, bags.jpeg(stamp, content)))
        messages.append((bags.LABELS, stamp, bags.text(label)))
    bags.write(tmp_path / "spool" / "monday", messages)
    robot.wait_until(lambda status: status.get("ingest", {}).get("kept") == 60)
    run = server.start_run()
    server.wait_until(lambda: server.closed(run))
    (answer,) = server.closed(run)["robots"]
    assert answer["outcome"] == "accepted"
    assert 30 < answer["num_examples"] < 60
    assert (robot.state / "trained.json").exists()


@pytest.mark.slow
def test_sigterm_in_the_middle_of_a_training_ends_everything_at_once(
    server, robots, tmp_path, labelled
):
    server.environment |= ENDLESS
    server.start()
    config = server.admit(tmp_path / "r1", train=True, examples=(labelled,))
    robot = robots(config).start()
    server.wait_until(lambda: server.online() == {"r1"})
    run = server.start_run()
    robot.wait(state="training")
    robot.wait_until(lambda _: robot.children("training_process"))
    time.sleep(1)
    children = robot.children("training_process")
    assert ended_cleanly(robot)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    server.wait_until(lambda: server.failure(run))  # it heard of it at once, not at the deadline


@pytest.mark.slow
def test_a_failed_training_is_told_without_paths_and_the_robot_is_idle_again(
    server, robots, tmp_path
):
    server.start()
    config = server.admit(tmp_path / "r1", train=True, examples=(tmp_path / "no such bag",))
    robot = robots(config).start()
    server.wait_until(lambda: server.online() == {"r1"})
    run = server.start_run()
    server.wait_until(lambda: server.failure(run))
    assert "r1: " in server.failure(run)
    assert str(tmp_path) not in server.failure(run)
    robot.wait(state="idle")
    time.sleep(0.5)
    assert robot.status()["state"] == "idle"
    assert ended_cleanly(robot)


# ------------------------------------------------------------------------------- a bad network


@pytest.mark.slow
def test_a_robot_waits_for_a_server_that_is_not_there_and_joins_it(server, robots, tmp_path):
    config = server.admit(tmp_path / "r1")
    robot = robots(config).start()
    status = robot.wait(state="offline")
    assert f"no answer from {server.address}" in status["reason"]
    server.start()
    status = robot.wait(state="idle", active_version=1)
    assert (status["name"], status["reason"]) == ("r1", "")
    server.kill()
    robot.wait(state="offline")
    assert ended_cleanly(robot)


@pytest.mark.parametrize("kind", ["silent", "full"])
def test_sigterm_does_not_wait_for_a_network_that_hangs(server, robots, tmp_path, kind):
    config = server.admit(tmp_path / "r1")
    with ExitStack() as sockets:
        silent = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3 if kind == "full" else 0):  # then the kernel answers no further connection
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        robot = robots(config, EDGE_AGENT_SERVER__ADDRESS=address).start()
        robot.wait(state="starting")
        port = silent.getsockname()[1]
        robot.wait_until(lambda _: robot.calls(port))
        assert ended_cleanly(robot)
        assert f"a call to {address} hangs" in robot.log.read_text()


@pytest.mark.slow
@pytest.mark.soak  # the server is killed in a training below
def test_a_robot_survives_a_restart_of_the_server_and_joins_again(
    server, robots, tmp_path, labelled
):
    server.start()
    config = server.admit(tmp_path / "r1", train=True, examples=(labelled,))
    robot = robots(config).start()
    server.wait_until(lambda: server.online() == {"r1"})
    for _ in range(2):
        server.kill()
        robot.wait(state="offline")
        server.start()
        robot.wait(state="idle")
        server.wait_until(lambda: server.online() == {"r1"})
    assert ended_cleanly(robot)


@pytest.mark.slow
def test_a_training_goes_on_while_the_server_is_killed_and_its_update_counts(
    server, robots, tmp_path, labelled
):
    server.start()
    config = server.admit(tmp_path / "r1", train=True, examples=(labelled,))
    robot = robots(config).start()
    server.wait_until(lambda: server.online() == {"r1"})
    run = server.start_run()
    robot.wait(state="training")
    server.kill()
    robot.wait(state="offline")
    server.start()
    server.wait_until(lambda: server.closed(run))
    assert [r["outcome"] for r in server.closed(run)["robots"]] == ["accepted"]
    status = robot.wait_until(lambda status: status["rounds"] and "bytes_up" in status["rounds"][0])
    assert len(status["rounds"]) == 1  # it was trained once
    assert server.log.read_text().count("begins a session") == 1  # a new session would ask again
    robot.wait_until(lambda _: "connected to" in robot.log.read_text())  # after the status
    assert robot.log.read_text().count("connected to") == 1


@pytest.mark.slow
@pytest.mark.soak  # end_to_end/test_bad_days.py kills one in a training
def test_a_robot_that_was_killed_joins_again_at_once(server, robots, tmp_path, labelled):
    server.start()
    config = server.admit(tmp_path / "r1", train=True, examples=(labelled,))
    robot = robots(config).start()
    server.wait_until(lambda: server.online() == {"r1"})
    for _ in range(3):
        robot.kill()
        assert robot.status()["name"] == "r1"  # what it wrote last is whole
        begin, hellos = time.monotonic(), server.log.read_text().count("begins a session")
        robot.start()
        server.wait_until(lambda n=hellos: server.log.read_text().count("begins a session") > n)
        robot.wait(state="idle", active_version=1)
        server.wait_until(lambda: server.online() == {"r1"})
        assert time.monotonic() - begin < 40  # Flower alone would refuse it for a minute
    assert "Traceback" not in robot.log.read_text()


# ------------------------------------------------------------------------------- a server says no


def test_an_unknown_robot_is_told_why_waits_and_joins_when_it_is_admitted(
    shared_server, robots, tmp_path
):
    line = enroll(shared_server.server_dir.kit, tmp_path, ExampleSettings(), train=False)
    robot = robots(tmp_path / "agent.toml").start()
    status = robot.wait(state="refused")
    mine = fingerprint(line)
    assert mine in status["reason"]
    assert "cloud-server robots add" in status["reason"]
    assert mine in shared_server.log.read_text()
    assert robot.process.poll() is None
    Register(shared_server.server_dir.robots).add("late", "hall", line)
    status = robot.wait(state="idle", active_version=1)
    assert (status["name"], status["reason"], status["standing"]) == ("late", "", "approved")
    text = robot.log.read_text()
    assert text.count("unknown robot key") == 1  # not once a try
    assert ended_cleanly(robot)


@pytest.mark.slow
def test_a_robot_that_is_revoked_waits_and_comes_back_when_it_is_added_again(
    server, robots, tmp_path, labelled
):
    server.start()
    config = server.admit(tmp_path / "r1", train=True, examples=(labelled,))
    robot = robots(config).start()
    server.wait_until(lambda: server.online() == {"r1"})
    register = Register(server.server_dir.robots)
    register.revoke("r1", "stolen")
    status = robot.wait(state="refused")
    assert "stolen" in status["reason"]
    register.forget("r1")
    robot.wait_until(lambda status: "unknown robot key" in status["reason"])
    register.add("found", "hall", (robot.config.parent / "robot.pub").read_text())
    robot.wait(state="idle", name="found")
    server.wait_until(lambda: server.online() == {"found"})
    assert ended_cleanly(robot)


@pytest.mark.slow
def test_a_robot_that_is_suspended_follows_models_and_takes_no_part(
    server, robots, tmp_path, labelled
):
    server.start()
    config = server.admit(tmp_path / "r1", train=True, examples=(labelled,))
    robot = robots(config).start()
    server.wait_until(lambda: server.online() == {"r1"})
    register = Register(server.server_dir.robots)
    register.suspend("r1", "its camera is dirty")
    status = robot.wait(standing="suspended", state="idle")  # it is told why, then it settles
    assert status["standing_reason"] == "its camera is dirty"
    server.wait_until(lambda: server.online() == set())
    register.approve("r1")
    status = robot.wait(standing="approved")
    server.wait_until(lambda: server.online() == {"r1"})
    text = robot.log.read_text()
    assert text.count("takes no part in training: suspended (its camera is dirty)") == 1
    assert text.count("may take part in training again") == 1
    assert ended_cleanly(robot)


@pytest.mark.slow
def test_a_paused_robot_tells_so_and_answers_with_its_reason(server, robots, tmp_path, labelled):
    server.start()
    config = server.admit(tmp_path / "r1", train=True, examples=(labelled,))
    robot = robots(config, EDGE_AGENT_POLL__IDLE_S="3").start()
    server.wait_until(lambda: server.online() == {"r1"})
    pause(robot.state, "docking")  # too late for the report: the server asks it
    run = server.start_run()
    server.wait_until(lambda: server.failure(run))
    assert "docking" in server.failure(run)
    assert not robot.status()["rounds"]
    resume(robot.state)
    server.wait_until(lambda: server.ended(run))
    run = server.start_run()
    server.wait_until(lambda: server.closed(run))
    assert [r["outcome"] for r in server.closed(run)["robots"]] == ["accepted"]


# ------------------------------------------------------------------------------- its own disk


def test_a_damaged_model_is_repaired_at_the_next_start(shared_server, robots, tmp_path):
    robot = robots(shared_server.admit(tmp_path / "r2", "r2")).start()
    robot.wait(active_version=1)
    robot.kill()
    models = Models(robot.state / "models")
    (models.current / "head.tflite").write_bytes(b"damaged")
    (models.current / "manifest.json").write_bytes(b"")
    robot.start().wait(active_version=1)
    assert models.active("fp32").manifest.version == 1
    assert ended_cleanly(robot)


def test_another_precision_in_the_settings_is_fetched_at_the_next_start(
    shared_server, robots, tmp_path
):
    robot = robots(shared_server.admit(tmp_path / "r3", "r3")).start()
    robot.wait(active_version=1)
    robot.terminate()
    robot.environment["EDGE_AGENT_ENGINE__PRECISION"] = "int8"
    robot.start().wait_until(lambda status: status.get("publishes"))
    assert Models(robot.state / "models").active("int8").manifest.version == 1
    assert ended_cleanly(robot)


def test_a_model_that_cannot_be_installed_is_tried_less_and_less_often(
    shared_server, robots, tmp_path
):
    store = shared_server.server_dir.store
    damaged = (
        (store / "versions" / "000001.json").read_text().replace('"sha256": "', '"sha256": "0')
    )
    (store / "versions" / "000099.json").write_text(
        re.sub(r'("0[0-9a-f]{63})[0-9a-f]"', r'\1"', damaged)
    )
    (store / "channels" / "canary.json").write_text('{"version": 99}')
    config = shared_server.admit(tmp_path / "r4", "r4")
    robot = robots(config, EDGE_AGENT_SERVER__CHANNEL="canary").start()
    robot.wait_until(lambda _: "is not installed" in robot.log.read_text())
    time.sleep(1.6)
    assert robot.log.read_text().count("is not installed") <= 4  # it polls every 0.2 s
    assert robot.status()["state"] == "idle"
    assert robot.status()["active_version"] is None
    assert ended_cleanly(robot)


def test_a_model_of_a_higher_protocol_is_not_installed_and_both_sides_say_update_the_agent(
    shared_server, robots, tmp_path
):
    store = shared_server.server_dir.store
    newer = json.loads((store / "versions" / "000001.json").read_text())
    newer |= {"version": 98, "protocol": PROTOCOL + 1}
    (store / "versions" / "000098.json").write_text(json.dumps(newer))
    (store / "channels" / "newer.json").write_text('{"version": 1}')
    config = shared_server.admit(tmp_path / "r6", "r6")
    robot = robots(config, EDGE_AGENT_SERVER__CHANNEL="newer").start()
    robot.wait(active_version=1)
    (store / "channels" / "newer.json").write_text('{"version": 98}')
    words = f"manifest.json is of protocol {PROTOCOL + 1}, fleetlearn {__version__} knows protocols"
    robot.wait_until(lambda status: status.get("not_installed", "").startswith(words))
    assert robot.status()["not_installed"].endswith(": update the agent")
    assert robot.status()["active_version"] == 1
    shared_server.wait_until(
        lambda: any(
            line.startswith(f"robot r6 does not run the newest model: {words}")
            for line in shared_server.words()
        )
    )
    assert ended_cleanly(robot)


def test_a_robot_keeps_its_model_while_another_channel_has_none_and_goes_back_without_a_network(
    shared_server, robots, tmp_path
):
    robot = robots(shared_server.admit(tmp_path / "switching", "switching")).start()
    robot.wait(active_version=1)
    robot.terminate()
    robot.environment["EDGE_AGENT_SERVER__CHANNEL"] = "nothing"
    waiting = "nothing from channel nothing yet; version 1 of another one stays in use"
    robot.start().wait(active_version=1, not_installed=waiting, state="idle")
    assert ended_cleanly(robot)
    robot.environment |= {
        "EDGE_AGENT_SERVER__CHANNEL": "stable",
        "EDGE_AGENT_SERVER__ADDRESS": "127.0.0.1:9",  # nobody listens there
    }
    robot.start().wait(active_version=1, not_installed="", state="offline")
    assert ended_cleanly(robot)


def test_a_channel_that_does_not_exist_is_told_at_both_ends(shared_server, robots, tmp_path):
    config = shared_server.admit(tmp_path / "astray", "astray")
    robot = robots(config, EDGE_AGENT_SERVER__CHANNEL="beta").start()
    words = "nothing is published on channel beta: see server.channel in agent.toml"
    robot.wait(active_version=None, not_installed=words, state="idle")
    told = f"robot astray does not run the newest model: {words}"
    shared_server.wait_until(lambda: told in shared_server.words())
    assert ended_cleanly(robot)


def test_a_state_directory_that_cannot_be_written_does_not_stop_the_agent(
    shared_server, robots, tmp_path
):
    config = shared_server.admit(tmp_path / "r5", "r5")
    (tmp_path / "r5" / "state").write_text("a file")
    robot = robots(config).start()
    shared_server.wait_until(lambda: "is not installed" in robot.log.read_text())
    assert robot.terminate() == 0
    assert "Traceback" not in robot.log.read_text()


@pytest.mark.base
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("no config", r"agent\.toml: no such file; `edge-agent enroll` makes one"),
        ("wrong TOML", r"agent\.toml: not readable TOML"),
        ("unknown key", r'agent\.toml: servr: unknown section "servr"; did you mean "server"\?'),
        ("no key", r"robot\.key: no such key; run `edge-agent enroll` first"),
        ("bad CA", r"ca\.crt: not a CA certificate"),
    ],
)
def test_what_is_wrong_at_the_start_is_one_line(tmp_path, damage, reason):
    from fleet_model.protocol.proof import make_key

    config = tmp_path / "agent.toml"
    content = '[server]\naddress = "127.0.0.1:1"\n'
    content += {"wrong TOML": "[", "unknown key": "[servr]\n"}.get(damage, "")
    if damage != "no config":
        config.write_text(content)
    if damage != "no key":
        make_key(tmp_path / "robot.key")
    (tmp_path / "ca.crt").write_text("not a certificate")
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(f"edge-agent: .*{reason}.*\n", done.stderr)


# ------------------------------------------------------------------------------- in this process


@pytest.fixture
def agent(server, tmp_path, monkeypatch):
    """An agent in a thread of this process; the server is not there."""
    monkeypatch.setattr("edge_agent.robot.backoff.Backoff.next_s", lambda self: 0.01)
    settings = load_settings(server.admit(tmp_path / "r1"), {"EDGE_AGENT_POLL__IDLE_S": "0.01"})
    agent = Agent(settings)
    agent.hellos = []
    monkeypatch.setattr(agent._store, "hello", lambda: agent.hellos.append(1) or ("r1", "hall"))
    thread = threading.Thread(target=agent.run)
    agent.start = thread.start
    yield agent
    agent.stop()
    if thread.ident:
        thread.join(60)
    assert not thread.is_alive()


def wait_for(holds):
    end = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_verdict_is_looked_at_beside_a_request_that_is_held(agent, monkeypatch):
    monkeypatch.setattr(News, "look_s", lambda self, poll_s: 3600.0)
    monkeypatch.setattr(agent._store, "latest", lambda channel, report: None)
    while agent._has_work():  # the first look has news: nothing is published
        agent._follow_models()
    file = TrialFile(agent._settings.state / "models")
    told = TrialOutcome(version=3, state="confirmed")

    with file.locked():  # as at the end of a probation, or by `edge-agent install --force`
        file.write(Trials(tried=[Tried(name="000003-ab", outcome=told)]))

    assert agent._has_work()
    agent._follow_models()
    assert agent._file.status.trial == {"version": 3, "state": "confirmed"}
    assert not agent._has_work()


def test_a_try_that_is_put_off_is_no_news_though_it_is_counted(agent, monkeypatch):
    monkeypatch.setattr("edge_agent.robot.backoff.Backoff.next_s", lambda self: 3600.0)
    file = TrialFile(agent._settings.state / "models")

    def latest(channel, report):
        with file.locked():
            file.write(Trials(tried=[Tried(name="000003-ab", tries=1)]))
        raise BundleError("it cannot be loaded now")

    monkeypatch.setattr(agent._store, "latest", latest)
    for _ in range(2):  # the first one has news: why it is not installed
        agent._follow_models()
        agent._has_work()
    assert not agent._has_work()


def test_an_agent_measures_memory_only_while_it_runs(server, tmp_path):
    def measures():
        return "memory" in {thread.name for thread in threading.enumerate()}

    before = threading.active_count()
    agent = Agent(load_settings(server.admit(tmp_path / "r1"), {}))
    assert threading.active_count() == before
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    try:
        wait_for(measures)
    finally:
        agent.stop()
        thread.join(60)
    assert not thread.is_alive()
    assert not measures()


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a bug"), RefusedError("who?"), ConnectionFailed("gone")]
)
def test_after_any_failure_the_agent_goes_on_with_a_hello(agent, monkeypatch, caplog, error):
    failures = []

    def latest(channel, report):
        if len(failures) < 3:
            failures.append(channel)
            raise error

    monkeypatch.setattr(agent._store, "latest", latest)
    with caplog.at_level(logging.WARNING):
        agent.start()
        wait_for(lambda: len(agent.hellos) > 3)
        wait_for(lambda: agent._file.status.state == "idle")
    assert len(failures) == 3
    assert len(agent.hellos) == 4
    bug = isinstance(error, ZeroDivisionError)
    assert ("Traceback" in caplog.text) is bug


@pytest.mark.parametrize(
    ("error", "state"), [(RefusedError("who?"), "refused"), (ConnectionFailed("gone"), "offline")]
)
def test_why_it_waits_is_in_the_status(agent, monkeypatch, error, state):
    def hello():
        raise error

    monkeypatch.setattr(agent._store, "hello", hello)
    agent.start()
    wait_for(lambda: read_status(agent._settings.state).get("state") == state)
    assert read_status(agent._settings.state)["reason"] == str(error)


def test_what_is_said_about_a_bug_names_the_log(agent, monkeypatch):
    reasons = []
    monkeypatch.setattr(agent._file, "set_state", lambda state, reason="": reasons.append(reason))
    monkeypatch.setattr(agent._store, "latest", lambda channel, report: 1 / 0)
    agent.start()
    wait_for(lambda: any(reasons))
    assert next(filter(None, reasons)) == ("ZeroDivisionError in the agent; details are in its log")


def test_every_look_tells_the_server_about_the_robot(agent, monkeypatch):
    reports = []
    monkeypatch.setattr(agent._store, "latest", lambda channel, report: reports.append(report))
    pause(agent._settings.state, "docking")
    agent.start()
    wait_for(lambda: reports)
    assert unpack_report(reports[0]).busy == "docking"


@pytest.mark.base
@pytest.mark.parametrize("train", [False, True])
def test_without_flower_a_robot_follows_models_but_does_not_train(tmp_path, train):
    """As on the Python 3.10 of ROS 2 Humble."""
    from fleet_model.protocol.proof import make_key

    make_key(tmp_path / "robot.key")
    import certifi

    (tmp_path / "ca.crt").write_bytes(Path(certifi.where()).read_bytes())
    paths = '["frames"]' if train else "[]"
    toml = f'[server]\naddress = "127.0.0.1:1"\n[examples]\npaths = {paths}\n'
    (tmp_path / "agent.toml").write_text(toml)
    blocked = "import sys; sys.modules.update(dict.fromkeys(['flwr', 'tensorflow', 'keras']))\n"
    code = "from edge_agent.cli import main; sys.argv[0] = 'edge-agent'; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", blocked + code, "run", "-c", str(tmp_path / "agent.toml")],
        stderr=subprocess.PIPE,
        text=True,
    )
    if train:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 2
        assert "training needs flwr: pip install 'fleetlearn[agent]'" in errors.splitlines()[-1]
        assert "Traceback" not in errors
        return
    wait_for(lambda: read_status(tmp_path / "state").get("state") == "offline")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors


def test_the_status_is_json_at_any_moment(server, robots, tmp_path):
    robot = robots(server.admit(tmp_path / "r1")).start()
    path = robot.state / "status.json"
    wait_for(path.exists)
    for _ in range(200):
        json.loads(path.read_text())
    robot.kill()
    assert json.loads(path.read_text())["trainer"] == "litert"


# ----------------------------------------------------------------- what an operator does to a fleet


def test_a_server_that_moves_takes_its_robots_along_and_one_that_does_not_keeps_them(
    server, robots, tmp_path
):
    old, new = server.address, f"127.0.0.1:{free_port()}"
    toml = server.server_dir.settings
    toml.write_text(toml.read_text().replace("[network]\n", f'[network]\nmoves_to = "{new}"\n'))
    server.start()
    robot = robots(server.admit(tmp_path / "r1")).start()
    robot.wait(active_version=1, state="idle", server=old)  # nobody answers there yet
    kept = robot.state / "server-address.json"
    robot.wait_until(lambda _: kept.exists() and json.loads(kept.read_text())["other"] == new)
    assert robot.status()["state"] == "idle"
    assert json.loads(kept.read_text())["current"] == old

    server.kill()
    port = new.rpartition(":")[2]
    toml.write_text(re.sub(r"(?m)^port = \d+", f"port = {port}", toml.read_text()))
    server.address = new
    server.start()
    robot.wait(state="idle", server=new)
    assert json.loads(kept.read_text())["current"] == new
    assert ended_cleanly(robot)
    robot.start().wait(state="idle", server=new)  # also after a restart
    assert ended_cleanly(robot)

    server.kill()  # and back: the robot still knows where it was
    port = old.rpartition(":")[2]
    toml.write_text(re.sub(r"(?m)^port = \d+", f"port = {port}", toml.read_text()))
    server.address = old
    server.start()
    robot.start().wait(state="idle", server=old)
    assert ended_cleanly(robot)


def test_one_key_on_two_machines_is_told_at_the_server_and_on_both(shared_server, robots, tmp_path):
    first = shared_server.admit(tmp_path / "mv", "mv")
    shutil.copytree(tmp_path / "mv", tmp_path / "clone")
    both = [robots(config).start() for config in (first, tmp_path / "clone" / "agent.toml")]
    words = "two agents use this robot's key, such as on a cloned machine: "
    for robot in both:
        robot.wait_until(lambda status: status.get("warning", "").startswith(words))
    told = f"robot mv: {words}"
    shared_server.wait_until(lambda: any(line.startswith(told) for line in shared_server.words()))
    for robot in both:
        assert ended_cleanly(robot)


# ------------------------------------------------------------------------------- models on trial


@pytest.fixture
def on_trial(shared_server, robots, tmp_path):
    """Return a robot with frames that follows a channel of its own, and what publishes there."""
    store = DirectoryStore(shared_server.server_dir.store)
    frames = moody_workload.labelled_frames(tmp_path / "frames", 24)
    site = moody_workload.site(tmp_path / "a" / "site")
    channel = "trial-" + "".join(c for c in tmp_path.name if c.isalpha())[-20:].lower()

    def publish(version, mood="", **about):
        store.publish(moody_workload.bundle(tmp_path, version, mood, **about), channel, TINY)

    examples = ExampleSettings(paths=(frames,), held_out=0.5)
    name = channel.replace("trial-", "r-")
    config = shared_server.admit(tmp_path / name, name, settings=examples)
    robot = robots(
        config,
        EDGE_AGENT_SERVER__CHANNEL=channel,
        EDGE_AGENT_INSTALL__PROBATION_S="0.1",
        PYTHONPATH=f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    )
    return robot, name, publish


def test_a_worse_model_is_refused_a_good_one_confirmed_and_both_sides_say_so(
    shared_server, on_trial
):
    robot, name, publish = on_trial
    publish(201)
    robot.start().wait(active_version=201)
    publish(202, worse=True)
    words = "accuracy 0.000, 1.000 with version 201, on 12 held-out examples"
    robot.wait(not_installed=f"version 202 is refused: {words}", active_version=201)
    warning = f"WARNING: version 202 is refused by {name} ({words})"
    shared_server.wait_until(lambda: warning in shared_server.words())
    publish(203)
    robot.wait_until(lambda status: (status.get("trial") or {}).get("state") == "confirmed")
    assert robot.status()["active_version"] == 203
    confirmed = f"version 203 is confirmed by {name}"
    shared_server.wait_until(lambda: confirmed in shared_server.words())
    command = [sys.executable, "-m", "edge_agent.cli", "rollback", "--config", str(robot.config)]
    subprocess.run(command, env=robot.environment, check=True)
    told = "version 203 was given back: by `edge-agent rollback`"
    robot.wait(active_version=201, not_installed=told)
    assert ended_cleanly(robot)


def test_killed_while_a_model_hangs_on_trial_the_agent_goes_on_with_the_old_one_and_refuses_it(
    shared_server, on_trial
):
    robot, _, publish = on_trial
    publish(211)
    robot.start().wait(active_version=211)
    publish(212, "hang")
    robot.wait_until(lambda _: robot.children("trial_process"))
    (child,) = robot.children("trial_process")
    robot.kill()
    shared_server.wait_until(lambda: not psutil.pid_exists(child))
    # Where the child takes longer than this to read the frames, it is not the model that is slow.
    robot.environment["EDGE_AGENT_INSTALL__TIMEOUT_S"] = "15"
    robot.start().wait(
        active_version=211, not_installed="version 212 is refused: it did not answer in time"
    )
    assert robot.log.read_text().count("it did not answer in time; it is tried again") == 1
    assert ended_cleanly(robot)


@pytest.mark.slow
def test_a_round_learns_from_what_a_person_has_labelled_here(server, robots, tmp_path, bags):
    server.start()
    messages = []
    for index in range(60):
        picture = np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)
        content = cv2.imencode(".jpg", picture)[1].tobytes()
        stamp = bags.START_NS + index * 10**9
        messages.append((bags.CAMERA, stamp, bags.jpeg(stamp, content)))
    examples = ExampleSettings(paths=(bags.write(tmp_path / "bag", messages),))
    config = server.admit(tmp_path / "r1", train=True, settings=examples)
    robot = robots(config).start()
    server.wait_until(lambda: server.online() == {"r1"})
    run = server.start_run()
    server.wait_until(lambda: server.failure(run))
    assert "no examples" in server.failure(run) or "label topic" in server.failure(run)
    folder = robot.state / "labels"
    frames = KeptFrames(load_settings(config), folder / "known-frames", boxes=False)
    answers = Answers(folder, "ann")
    for number, candidate in enumerate(frames.listed()):
        label = ("circle", "square", "star")[number % 3]
        answers.give(candidate.frame, Answer(frame=candidate.name, kind=LABEL, label=label))
    answers.close()
    run = server.start_run()
    server.wait_until(lambda: server.closed(run))
    (answer,) = server.closed(run)["robots"]
    assert answer["outcome"] == "accepted"
    assert 30 < answer["num_examples"] < 60
