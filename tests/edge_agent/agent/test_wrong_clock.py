"""A real agent whose clock is wrong, by libfaketime: it says so, and keeps its model."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloud_server.signing.signing import offer
from cloud_server.state.model_store import DirectoryStore

pytestmark = pytest.mark.slow
UNPACKED = Path(__file__).parents[3] / ".venv-tools" / "servers" / "root"
PATIENCE_S = 240.0


@pytest.fixture
def with_clock():
    """Return variables of the environment by which a process and its children see another time."""
    places = [UNPACKED, Path("/")]
    found = [one for place in places for one in place.glob("usr/lib/*/faketime/libfaketimeMT.so.1")]
    if not found:
        pytest.skip("libfaketime is not here and could not be fetched: `make test` says so")

    def at(offset):
        return {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME": offset,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    return at


@pytest.mark.parametrize(
    ("offset", "words"),
    [("+2d", r"its clock is 172\d{3} s ahead"), ("-400d", "is not valid at the time")],
    ids=["ahead", "behind"],
)
def test_the_robot_says_that_its_clock_is_wrong_and_keeps_its_model(
    server, with_clock, tmp_path, offset, words
):
    server.start()
    config, log = server.admit(tmp_path / "r1"), tmp_path / "agent.log"
    state = tmp_path / "r1/state/status.json"

    def status():
        return json.loads(state.read_text()) if state.exists() else {}

    def run(until, **environment):
        """Run an agent until its status is so; return it."""
        with log.open("ab") as stream:
            agent = subprocess.Popen(
                [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(config)],
                env={
                    **os.environ,
                    "EDGE_AGENT_POLL__IDLE_S": "0.2",
                    "EDGE_AGENT_INSTALL__PROBATION_S": "0",
                    **environment,
                },
                stdout=stream,
                stderr=stream,
            )
        try:
            end = time.monotonic() + PATIENCE_S
            while not until(status()):
                assert agent.poll() is None, log.read_text()
                assert time.monotonic() < end, f"{status()}\n{log.read_text()}"
                time.sleep(0.1)
            return status()
        finally:
            agent.kill()
            agent.wait()

    run(lambda now: now.get("active_version") == 1)
    DirectoryStore(server.server_dir.store).reissue(1, 2, "2026-01-01T00:00:00")
    offer(server.server_dir, "stable", 2)
    state.unlink()
    told = run(
        lambda now: now.get("state") in ("refused", "offline") and now["reason"],
        **with_clock(offset),
    )
    assert re.search(words, told["reason"]), told["reason"]
    assert "clock" in told["reason"]
    assert told["active_version"] == 1
    command = [sys.executable, "-m", "edge_agent.cli", "status", "--config", str(config)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "clock" in said
    state.unlink()
    run(lambda now: now.get("active_version") == 2 and now["state"] == "idle")  # it is right again
