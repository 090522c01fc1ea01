"""A robot with bags that nobody has labelled, a clock, and the real page of the command."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import httpx
import pytest
from bag_writer import BagWriter
from tiny_versions import write_versions

from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink
from fleet_model.durable import point_durably


@pytest.fixture
def robot(tmp_path):
    """Return the settings of a robot with these examples."""

    def make(*paths, **examples):
        return AgentSettings(
            server=ServerLink(address="localhost:1"),
            state=tmp_path / "state",
            examples=ExampleSettings(paths=paths, **examples),
        )

    return make


@pytest.fixture
def clock():
    """Return a clock that goes on by a second at each look, from 2026-12-01 10:00:00 UTC."""
    times = (
        datetime(2026, 12, 1, 10, tzinfo=timezone.utc) + timedelta(seconds=s) for s in range(999)
    )
    return lambda: next(times)


PATIENCE_S = 240.0
SETTINGS = """
state = "state"
[server]
address = "127.0.0.1:1"
[examples]
paths = ["bag"]
"""


class Page:
    """A process of the command, and what it has printed first."""

    def __init__(self, folder, *words):
        self.folder = folder
        command = [sys.executable, "-m", "edge_agent", "label", "--config", folder, "--json"]
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [*command, *words], stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert line, (folder / "log").read_text()
        self.told = json.loads(line)
        self.url = self.told["url"]
        self.origin = f"http://{urlsplit(self.url).netloc}"

    @contextmanager
    def client(self, **how):
        """Open the printed address as a browser does."""
        with httpx.Client(base_url=self.origin, timeout=PATIENCE_S, **how) as client:
            assert client.get(self.url).status_code == 200
            client.headers["origin"] = self.origin
            yield client

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        self.log.close()
        return out


@pytest.fixture
def folder(tmp_path, bags):
    (tmp_path / "agent.toml").write_text(SETTINGS)
    bags.drive(tmp_path / "bag", [""] * 12)
    models = write_versions(tmp_path / "state" / "models", 3)
    point_durably(models / "current", "versions/3")
    return tmp_path


@pytest.fixture
def label(folder):
    started = []

    def start(*words):
        started.append(Page(folder, *(words or ("--port", "0"))))
        return started[-1]

    yield start
    for page in started:
        page.process.kill()
        page.process.wait()
        page.log.close()


@pytest.fixture(scope="module")
def page_of_all(tmp_path_factory):
    """Return a page that several tests may ask, and its cookie."""
    folder = tmp_path_factory.mktemp("robot")
    (folder / "agent.toml").write_text(SETTINGS)
    BagWriter().drive(folder / "bag", [""] * 2)
    page = Page(folder, "--port", "0", "--classes", "a,b")
    with page.client() as client:
        cookie = "; ".join(f"{one.name}={one.value}" for one in client.cookies.jar)
    yield page, cookie
    page.process.kill()
    page.process.wait()
    page.log.close()
