"""Fixtures of real bags and pictures; a real server that a test may stop and start."""

import os
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bag_writer import BagWriter, encode


@pytest.fixture
def spoilt_png():
    """Return the bytes of a PNG whose checksums are right and whose pixels cannot be inflated."""
    png = bytearray(encode(0, ".png"))
    name = png.index(b"IDAT")
    end = name + 4 + int.from_bytes(png[name - 4 : name], "big")
    png[name + 4 : end] = bytes(end - name - 4)
    png[end : end + 4] = zlib.crc32(png[name:end]).to_bytes(4, "big")
    return bytes(png)


@pytest.fixture
def bags():
    return BagWriter()


@pytest.fixture
def picture_bytes():
    return encode


@pytest.fixture
def image_folder(tmp_path):
    """Return a writer of folder/<label>/<index>.png."""

    def write(name, counts) -> Path:
        for label, count in counts.items():
            (tmp_path / name / label).mkdir(parents=True)
            for index in range(count):
                (tmp_path / name / label / f"{index:03d}.png").write_bytes(encode(index, ".png"))
        return tmp_path / name

    return write


@pytest.fixture
def gray_engine():
    """Return an engine at the seam: gray 20, 21, ... is answered with labels[0], labels[1], ..."""

    def make(labels, version=3):
        from fleet_model.engine import Answer
        from fleet_model.workloads.image_classifier import ImageClassifier

        workload = ImageClassifier(labels)

        def answer(frame):
            gray = round(float(frame.decode().mean()))
            logits = np.full(len(labels), np.log(0.25 / (len(labels) - 1)), np.float32)
            logits[(gray - 20) % len(labels)] = np.log(0.75)
            outputs = {"logits": logits}
            return Answer(outputs, workload.decode(outputs, None))

        manifest = SimpleNamespace(version=version, described_task=SimpleNamespace(former={}))
        return SimpleNamespace(answer=answer, workload=workload, manifest=manifest)

    return make


PATIENCE_S = 240.0


class RestartableServer:
    """A server process of one test, on a directory of the tiny bundle; ends rounds quickly."""

    def __init__(self, server_dir, log):
        from polled_admin import PolledAdmin

        from cloud_server.state.settings import load_settings

        self.server_dir, self.log, self._admin = server_dir, log, PolledAdmin(server_dir)
        self.address = f"127.0.0.1:{load_settings(server_dir.settings, {}).network.port}"
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "FLEETLEARN_ROUNDS__QUORUM": "1",
            "FLEETLEARN_ROUNDS__WAIT_S": "30",
        }
        self._process = None

    def start(self):
        with self.log.open("ab") as stream:
            command = [sys.executable, "-m", "cloud_server.cli", "start", str(self.server_dir.root)]
            self._process = subprocess.Popen(
                command, env=self.environment, stdout=stream, stderr=stream
            )
        host, port = self.address.split(":")

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) == 0

        self.wait_until(listens)

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_until(self, holds):
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"it did not happen; server:\n{self.log.read_text()}"
            time.sleep(0.1)

    def admit(self, directory, name="r1", *, train=False, examples=(), settings=None):
        """Enroll a robot in `directory` and admit it at site "hall"; return its agent.toml."""
        from cloud_server.robots.register import Register
        from edge_agent.cli.enroll import enroll
        from edge_agent.robot.settings import ExampleSettings

        settings = settings or ExampleSettings(paths=examples)
        line = enroll(self.server_dir.kit, directory, settings, train=train)
        Register(self.server_dir.robots).add(name, "hall", line)
        return directory / "agent.toml"

    def online(self):
        """Return the names of the robots that would be asked to train."""
        return {r["name"] for r in self._admin().status()["robots"] if r["online"]}

    def start_run(self):
        return self._admin().start_run(1)["id"]

    def failure(self, run_id):
        """Return why a run failed; "" while it goes on."""
        return self._admin().run(run_id)["error"]

    def ended(self, run_id):
        return self._admin().run(run_id)["state"] in ("finished", "failed", "stopped")

    def closed(self, run_id):
        """Return the history line of the run's first round once it is closed."""
        return next(iter(self._admin().run(run_id)["closed"]), None)

    def words(self):
        """Return what `cloud-server status` says in sentences."""
        return self._admin().status()["words"]


@pytest.fixture
def server(server_dir, tmp_path):
    """Return a server that is not yet started."""
    server = RestartableServer(server_dir, tmp_path / "server.log")
    yield server
    server.kill()


@pytest.fixture
def shared_server(running_server):
    """Return the server of the test module: robots may come and go, it must not be stopped."""
    server = RestartableServer(running_server.server_dir, running_server.log)
    server._process = running_server.process
    return server
