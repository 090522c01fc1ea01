"""One agent a state directory, whatever became of the one before."""

import os
import signal
import subprocess
import sys

import pytest

from edge_agent.agent import service
from edge_agent.robot.settings import AgentSettings, ServerLink
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base

# Holds the directory, and has a child process that outlives it.
HOLDER = """
import subprocess, sys, time
from pathlib import Path
from edge_agent.agent import service

class Agent:
    def __init__(self, settings):
        pass
    def run(self):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid, flush=True)
        time.sleep(600)

from edge_agent.robot.settings import AgentSettings, ServerLink
service.Agent = Agent
link = ServerLink(address="localhost:1")
service.serve(AgentSettings(server=link, state=Path(sys.argv[1])))
"""


class Ended:
    """An agent that has nothing to do."""

    runs = 0

    def __init__(self, settings):
        pass

    def run(self):
        Ended.runs += 1

    def stop(self):
        pass


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serve with an agent that ends at once, on the state directory of the test."""
    monkeypatch.setattr(service, "Agent", Ended)
    monkeypatch.setattr(Ended, "runs", 0)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    link = ServerLink(address="localhost:1")
    yield lambda: service.serve(AgentSettings(server=link, state=tmp_path / "state"))
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_second_agent_is_refused_until_the_first_is_killed(serve, tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "state")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            child = int(holder.stdout.readline())
            with pytest.raises(SettingsError, match="another `edge-agent run` works on this dir"):
                serve()
            assert Ended.runs == 0
        finally:
            holder.kill()
    try:
        serve()
    finally:
        os.kill(child, signal.SIGKILL)
    serve()
    assert Ended.runs == 2


def test_a_lock_that_cannot_be_written_is_no_reason_to_stop(serve, tmp_path, caplog):
    (tmp_path / "state" / service.LOCK).mkdir(parents=True)
    serve()
    assert Ended.runs == 1
    assert "a second agent would not be noticed" in caplog.text
