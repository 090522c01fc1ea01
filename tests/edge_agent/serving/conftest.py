"""A real `edge-agent serve`, on a folder of models as an agent keeps it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest
from free_ports import free_port
from tiny_versions import write_versions

from fleet_model.durable import point_durably

PATIENCE_S = 240.0
SETTINGS = """
state = "state"
[server]
address = "127.0.0.1:1"
[serve]
rest = "{rest}"
grpc = "{grpc}"
"""


class Served:
    """A server process, and the robot that it serves."""

    def __init__(self, folder, rest, grpc, more=""):
        self.folder, self.rest, self.grpc = folder, rest, grpc
        (folder / "agent.toml").write_text(SETTINGS.format(rest=rest, grpc=grpc) + more)
        self.log = folder / "log"
        self.models = folder / "state" / "models"

    def install(self, version):
        """Switch as the agent does."""
        if not (self.models / "versions" / str(version)).exists():
            write_versions(self.models, version)
        point_durably(self.models / "current", f"versions/{version}")

    def start(self, environment=None, program=("-m", "edge_agent")):
        command = [sys.executable, *program, "serve", "--config", str(self.folder)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stderr=log, stdout=log, env={**os.environ, **(environment or {})}
            )

    def client(self):
        if self.rest.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=self.rest.removeprefix("unix:"))
            return httpx.Client(transport=transport, base_url="http://robot", timeout=PATIENCE_S)
        return httpx.Client(base_url=f"http://{self.rest}", timeout=PATIENCE_S)

    def until(self, path="/v2/health/ready", holds=lambda answer: answer.status_code == 200):
        """Ask until the answer is as it should be; return it."""
        end = time.monotonic() + PATIENCE_S
        with self.client() as client:
            while True:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < end, self.log.read_text()
                try:
                    answer = client.get(path)
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                if holds(answer):
                    return answer
                time.sleep(0.02)

    def end(self, number=signal.SIGTERM):
        """Return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def serving(folder, more="", *, version=1, unix=False):
    folder.mkdir(exist_ok=True)
    if unix:
        rest, grpc = f"unix:{folder}/rest", f"unix:{folder}/grpc"
    else:
        rest, grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    server = Served(folder, rest, grpc, more)
    if version is not None:
        server.install(version)
    server.start()
    try:
        server.until("/v2/health/live")
        if version is not None:
            server.until()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Return a server of version 1 that the tests of a file share."""
    with serving(tmp_path_factory.mktemp("robot")) as server:
        yield server


@pytest.fixture
def serve(tmp_path):
    """Return what starts a server of one's own."""
    return lambda more="", **how: serving(tmp_path / "robot", more, **how)
