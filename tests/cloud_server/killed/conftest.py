"""A server that dies at a chosen step, and robots that train by arithmetic, over real TLS."""

import os
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.cli.admin_client import AdminClient
from cloud_server.robots.register import Register
from cloud_server.state.checkpoints import Checkpoints
from edge_agent.link.flower_connection import FleetConnection
from fleet_model.errors import ConnectionFailed, FleetError, RefusedError, UpdateError
from fleet_model.protocol.proof import public_line, sign, utc_now
from fleet_model.protocol.wire import pack_update, unpack_request
from fleet_model.types import Update

SCRIPT = Path(__file__).with_name("killing_server.py")
HELLO = "/fleetlearn/v1/robot/hello"
PATIENCE_S = 300.0


class Robot(threading.Thread):
    """Answers with an update that follows from its name and the version, at once."""

    def __init__(self, fleet, name):
        super().__init__(name=name, daemon=True)
        self.fleet = fleet
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.ending = threading.Event()
        self.trained = Counter()  # version -> times
        self.connection = None
        self.dies = False  # at its next message, once; systemd starts it again

    def run(self):
        while not self.ending.is_set():
            try:
                self.step()
            except UpdateError:
                continue  # a killed server has withdrawn what it asked, and asks again
            except RefusedError:
                self.drop()
            except ConnectionFailed:
                self.ending.wait(0.2)
                with suppress(ConnectionFailed):
                    self.resume()
        self.drop()

    def resume(self):
        try:
            if self.connection is not None:
                self.connection.resume()
        except RefusedError:
            self.drop()

    def drop(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None
        self.ending.wait(0.1)

    def step(self):
        from flwr.app import Message

        if self.connection is None:
            self.hello()
        message = self.connection.receive()
        if message is None:
            self.ending.wait(0.05)
            return
        request = unpack_request(message.content)
        self.trained[request.checkpoint.version] += 1
        if self.dies:
            self.dies = False
            self.connection._client.close()  # no word to the server
            self.connection = None
            return
        update = arithmetic(self.name, request.checkpoint)
        reply = Message(pack_update(update), reply_to=message)
        sent = False
        while not (sent or self.ending.is_set()):
            try:
                with suppress(UpdateError):  # it comes too late
                    self.connection.reply(reply, 0.1)
                sent = True
            except ConnectionFailed:
                self.ending.wait(0.2)
                with suppress(ConnectionFailed):
                    self.connection.resume()

    def hello(self):
        try:
            proof = sign(self.key, "POST", HELLO, utc_now())
            context = ssl.create_default_context(cafile=str(self.fleet.ca))
            url = f"https://{self.fleet.address}{HELLO}"
            response = httpx.post(url, headers=proof, verify=context, timeout=240)
        except httpx.TransportError as error:
            raise ConnectionFailed(str(error)) from None
        if response.status_code != 200:
            raise RefusedError(response.text)
        connection = FleetConnection(self.fleet.address, self.fleet.ca.read_bytes(), self.key)
        connection.activate()
        self.connection = connection


def arithmetic(name, checkpoint):
    rng = np.random.default_rng([checkpoint.version, *name.encode()])
    weights = {
        tensor: rng.normal(size=w.shape).astype(np.float32)
        for tensor, w in sorted(checkpoint.weights.items())
    }
    examples = int(rng.integers(5, 50))
    return Update(
        robot="", base_version=checkpoint.version, weights=weights, num_examples=examples,
        num_steps=1, metrics={"held_out": 3.0, "loss_after": 1.0},
    )  # fmt: skip


class KilledFleet:
    """One server directory, its robots, and as many server processes as it takes."""

    def __init__(self, server_dir, names=("r1", "r2")):
        self.server_dir = server_dir
        self.ca = server_dir.certificates / "ca.crt"
        self.address = ""
        self.process = None
        self.log = server_dir.root / "server.log"
        self.log.touch()
        self.logged = 0  # bytes, when the last server began
        self.robots = {name: Robot(self, name) for name in names}
        register = Register(server_dir.robots)
        for name, robot in self.robots.items():
            register.add(name, "hall", public_line(robot.key.public_key()))
        from cloud_server.state.settings import load_settings

        self.address = f"127.0.0.1:{load_settings(server_dir.settings, {}).network.port}"
        self.client = AdminClient(server_dir)

    def start(self, step="close", nth=10**9, wait=True, **environment):
        settings = {
            "FLEETLEARN_GATE__PUBLISH": "always",
            "FLEETLEARN_ROUNDS__DEADLINE_S": "200",
            "FLEETLEARN_ROUNDS__KEEP_CHECKPOINTS": "3",
            "FLEETLEARN_LIMITS__REFUSALS_PER_S": "1000",
            "OMP_NUM_THREADS": "1",
        }
        self.logged = self.log.stat().st_size
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(self.server_dir.root), step, str(nth)],
                env={**os.environ, **settings, **environment},
                stdout=log,
                stderr=log,
            )
        if wait:
            self.until("the server answers", lambda: self.look() is not None)

    def said(self):
        """Return what the last server has logged."""
        return self.log.read_bytes()[self.logged :].decode()

    def go(self):
        for robot in self.robots.values():
            robot.start()

    def look(self):
        with suppress(FleetError):
            return self.client.status()
        return None

    def words(self):
        """Return what `cloud-server status` says."""
        return self.client.status()["words"]

    def run(self, run_id):
        with suppress(ConnectionFailed):
            return self.client.run(run_id)
        return None

    def until(self, what, done):
        end = time.monotonic() + PATIENCE_S
        while not (result := done()):
            assert time.monotonic() < end, f"{what}: did not happen\n{self.log.read_text()}"
            if what != "the server dies":
                code = self.process.poll()
                assert code is None, f"{what}: server ended ({code})\n{self.log.read_text()}"
            time.sleep(0.1)
        return result

    def until_killed(self):
        self.until("the server dies", lambda: self.process.poll() is not None)
        assert self.process.returncode == -9, self.log.read_text()

    def ended(self, run_id):
        def look():
            run = self.run(run_id)
            return run if run and run["state"] in ("finished", "failed", "stopped") else None

        return self.until("the run ends", look)

    def weights(self):
        """Return the bytes of the newest checkpoint, and its version."""
        checkpoints = Checkpoints(self.server_dir.checkpoints)
        version = checkpoints.versions()[-1]
        folder = checkpoints.path(version).parent
        return version, [
            (folder / name).read_bytes()
            for name in ("weights.safetensors", "server_state.safetensors")
        ]

    def close(self):
        for robot in self.robots.values():
            robot.ending.set()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for robot in self.robots.values():
            if robot.ident:
                robot.join(60)


@pytest.fixture
def killed(server_dir):
    fleet = KilledFleet(server_dir)
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, new_server_dir):
    """Return version and bytes after a run of three rounds that nobody disturbs."""
    fleet = KilledFleet(new_server_dir(tmp_path_factory.mktemp("calm") / "server"))
    try:
        fleet.start()
        fleet.go()
        run = fleet.ended(fleet.client.start_run(3)["id"])
        assert run["state"] == "finished", run
        return fleet.weights()
    finally:
        fleet.close()
