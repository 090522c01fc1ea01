"""A running server with a history, and the SDK's own client of `cloud-server mcp`."""

import asyncio
import json
import os
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from cloud_server.models.release_log import ReleaseLog
from cloud_server.robots.register import Register
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.protocol.outcome import ACCEPTED, outcome_of
from fleet_model.protocol.proof import public_line

PATIENCE_S = 240  # machines are busy
PROGRAM = (sys.executable, "-m", "cloud_server.cli", "mcp")


@pytest.fixture(scope="module")
def fleet(running_server):
    """The server's directory: two robots, one of which waits, and a run of a ServerApp apart."""
    server_dir = running_server.server_dir
    register = Register(server_dir.robots)
    for name, pending in (("r1", False), ("r2", True)):
        key = public_line(ec.generate_private_key(ec.SECP384R1()).public_key())
        register.add(name, "hall", key, pending=pending)
    counts = {"held_out": 30.0, "left_out_unlabelled": 12.0, "accuracy_after": 0.75}
    robots = (
        RobotRecord(
            name="r1", site="hall", outcome=ACCEPTED, num_examples=40, metrics=counts, weight=40
        ),
        RobotRecord(name="r9", site="hall", outcome=outcome_of("refused", "of another model")),
    )
    for number in (1, 2):
        record = RoundRecord(
            run="20260101-120000", round=number, version=number + 1, seconds=3.0, robots=robots,
            metrics={"accuracy_before": 0.25, "accuracy_after": 0.75}, asked=2,
        )  # fmt: skip
        server_dir.append_history(record.as_json())
    run = Run(id="20260101-120000", rounds=2, rounds_closed=2, started_at=1.0, state="finished")
    RunStore(server_dir.runs_apart).save(run)
    releases = ReleaseLog(server_dir.releases)
    before, after = {"accuracy": 0.5}, {"accuracy": 0.9}
    releases.add(1, "published", "run a", before=before, after=after, examples=120)
    reasons = [{"kind": "fall", "words": "it fell"}]
    releases.add(2, "withheld", "run a", before=after, after={"accuracy": 0.2}, reasons=reasons)
    return server_dir


@pytest.fixture(scope="session")
def session():
    """Return what runs a coroutine function with a connected client, or give up."""

    def run(target, use):
        async def connected():
            async with Client(target) as client:
                return await use(client)

        return asyncio.run(asyncio.wait_for(connected(), PATIENCE_S))

    return run


@pytest.fixture(scope="session")
def over_stdio():
    """Return what makes the SDK's transport to `cloud-server mcp DIR`, which it starts."""

    def transport(directory, *options):
        words = (*PROGRAM[1:], str(directory), *options)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return stdio_client(
            StdioServerParameters(command=PROGRAM[0], args=list(words), env=environment)
        )

    return transport


@pytest.fixture(scope="session")
def said():
    """Return what a call answered: (is it an error?, the text, or the values of its JSON)."""

    def read(result):
        (content,) = result.content
        if result.is_error:
            return True, content.text
        assert json.loads(content.text) == result.structured_content
        return False, result.structured_content

    return read
