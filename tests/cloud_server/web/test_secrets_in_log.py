"""Nobody who reads the log at its most talkative can act as the operator or as a robot."""

import os
import ssl
import subprocess
import sys
import time

import httpx
import pytest

from cloud_server.robots.register import Register
from cloud_server.state.settings import load_settings
from edge_agent.link.flower_connection import FleetConnection
from fleet_model.errors import FleetError
from fleet_model.protocol.proof import make_key, read_key, sign, utc_now

from .conftest import PATIENCE_S


@pytest.mark.slow
def test_the_log_at_debug_level_holds_no_secret(server_dir, tmp_path, caplog):
    caplog.set_level("DEBUG")  # the robot's side of it
    line = make_key(tmp_path / "robot.key")
    Register(server_dir.robots).add("r1", "hall", line)
    log = tmp_path / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-X", "dev", "-m", "cloud_server.cli", "start", server_dir.root],
            env={**os.environ, "FLEETLEARN_LOG__LEVEL": "debug"},
            stdout=stream,
            stderr=stream,
        )
    try:
        proofs = speak(server_dir, read_key(tmp_path / "robot.key"), server, log)
    finally:
        server.terminate()
        server.wait(PATIENCE_S)

    told = log.read_text() + caplog.text
    assert "listening" in told
    for secret in (*proofs, *secrets_of(server_dir, tmp_path / "robot.key")):
        assert len(secret) > 20
        assert secret not in told


def speak(server_dir, key, server, log):
    """Do what operator and robot do, rightly and wrongly; return every proof that was sent."""
    network = load_settings(server_dir.settings, {}).network
    address = f"127.0.0.1:{network.port}"
    context = ssl.create_default_context(cafile=str(server_dir.certificates / "ca.crt"))
    token = server_dir.admin_token.read_text().strip()
    proofs = []
    with httpx.Client(base_url=f"https://{address}", verify=context, timeout=240) as http:
        wait_for(http, server, log)
        http.get("/fleetlearn/v1/admin/status", headers={"authorization": f"Bearer {token}"})
        http.get("/fleetlearn/v1/admin/status", headers={"authorization": f"Bearer {token[:-1]}"})
        proofs.append(token[:-1])
        for signed in ("/fleetlearn/v1/robot/whoami", "/another/path"):
            proof = sign(key, "GET", signed, utc_now())
            http.get("/fleetlearn/v1/robot/whoami", headers=proof)
            proofs.append(proof["x-robot-signature"])
    connection = FleetConnection(address, (server_dir.certificates / "ca.crt").read_bytes(), key)
    sent = connection._client._client.event_hooks["request"]
    sent.append(lambda request: proofs.append(request.headers.get("flwr-signature", token)))
    connection.activate()
    try:
        connection.receive()
        connection.heartbeat()
    except FleetError:
        pass  # what the server thinks of it is not asked here
    connection.close()
    return proofs


def wait_for(http, server, log):
    end = time.monotonic() + PATIENCE_S
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        try:
            return http.get("/docs")
        except httpx.TransportError:
            time.sleep(0.1)


def secrets_of(server_dir, robot_key):
    yield server_dir.admin_token.read_text().strip()
    for file in (server_dir.secrets / "ca.key", server_dir.secrets / "server.key", robot_key):
        yield from file.read_text().splitlines()[1:-1][:2]
