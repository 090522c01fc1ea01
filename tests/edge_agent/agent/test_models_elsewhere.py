"""A real agent, its server, and nginx in front of the files that `models sync` has brought."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from free_ports import free_port

from cloud_server.signing.signing import offer
from cloud_server.state.model_store import DirectoryStore

ROOT = Path(__file__).parents[3]
UNPACKED = ROOT / ".venv-tools" / "servers" / "root" / "usr" / "sbin" / "nginx"
TIMESTAMP = "metadata/timestamp.json"
PATIENCE_S = 240.0


@pytest.fixture
def nginx(server, tmp_path):
    """nginx with deploy/nginx/models.conf, whose places are those of this test."""
    program = shutil.which("nginx") or (str(UNPACKED) if UNPACKED.exists() else None)
    if program is None:
        pytest.skip("nginx is not here and could not be fetched: `make test` says so")
    home, port = tmp_path / "nginx", free_port()
    (home / "temp").mkdir(parents=True)
    (home / "models").mkdir()
    site = (ROOT / "deploy/nginx/models.conf").read_text()
    certificate = server.server_dir.certificates / "server.crt"
    for pattern, place in [
        (r"/etc/ssl/models/server\.crt", certificate),
        (r"/etc/ssl/models/server\.key", server.server_dir.secrets / "server.key"),
        (r"/srv/models", home / "models"),
        (r"listen 443", f"listen 127.0.0.1:{port}"),
    ]:
        site, found = re.subn(pattern, str(place), site)
        assert found, pattern
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {home}/temp/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""  # the folders of a test are its user's
    configuration = home / "nginx.conf"
    configuration.write_text(
        f"{user} daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;\n"
        f"events {{}}\nhttp {{ access_log {home}/access.log; {temporary}\n{site}\n}}\n"
    )
    command = [program, "-p", str(home), "-e", str(home / "error.log"), "-c", str(configuration)]
    process = subprocess.Popen(command)
    end = time.monotonic() + PATIENCE_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, (home / "error.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.05)
    yield home, f"https://127.0.0.1:{port}/fleet"
    process.kill()
    process.wait()


@pytest.fixture
def agents():
    started = []

    def start(config, log, **environment):
        with log.open("ab") as stream:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(config)],
                    env={**os.environ, "EDGE_AGENT_POLL__IDLE_S": "0.2", **environment},
                    stdout=stream,
                    stderr=stream,
                )
            )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def publish(server, version):
    DirectoryStore(server.server_dir.store).reissue(1, version, "2026-01-01T00:00:00")
    offer(server.server_dir, "stable", version)


def sync(server, home):
    command = [sys.executable, "-m", "cloud_server.cli", "models", "sync"]
    subprocess.run(
        [*command, str(server.server_dir.root), str(home / "models/fleet")],
        check=True,
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_a_robot_takes_models_from_nginx_and_refuses_what_was_changed_there(
    server, nginx, agents, tmp_path
):
    home, url = nginx
    server.start()
    config = server.admit(tmp_path / "r1")
    served = home / "models/fleet"
    sync(server, home)
    log = tmp_path / "agent.log"

    def start():
        return agents(
            config,
            log,
            EDGE_AGENT_SERVER__MODELS=url,
            EDGE_AGENT_SERVER__MODELS_CA=str(server.server_dir.certificates / "ca.crt"),
            EDGE_AGENT_INSTALL__PROBATION_S="0",
        )

    def status():
        try:
            return json.loads((tmp_path / "r1/state/status.json").read_text())
        except FileNotFoundError:
            return {}

    def until(holds):
        end = time.monotonic() + PATIENCE_S
        while not holds(status()):
            assert time.monotonic() < end, f"{status()}\n{log.read_text()}"
            time.sleep(0.1)

    agent = start()
    until(lambda now: now.get("active_version") == 1)
    asked = (home / "access.log").read_text()
    assert f"GET /fleet/{TIMESTAMP} " in asked
    assert "/fleet/objects/" in asked
    assert server.online() == set()  # it does not train; but its server knows it
    assert status()["name"] == "r1"

    agent.kill()
    agent.wait()
    old = (served / TIMESTAMP).read_bytes()
    publish(server, 2)
    sync(server, home)
    start()
    until(lambda now: now.get("active_version") == 2)

    (served / TIMESTAMP).write_bytes(old)
    publish(server, 3)  # the server tells of it, and the robot looks
    until(lambda now: "older than what this robot has seen" in now["not_installed"])
    assert status()["active_version"] == 2
    assert status()["state"] == "idle"
    signed = status()["signatures"]
    assert "older than what this robot has seen" in signed["refused"]
    assert (signed["channel"], signed["site"], signed["root"]) == ("stable", "hall", 1)
    assert signed["from"] == url.removeprefix("https://").removesuffix("/fleet")
    assert signed["verified_at"] < signed["until"]
    command = [sys.executable, "-m", "edge_agent.cli", "status", "--config", str(config)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "trust    root 1, signed by 1 of 1 keys (" in said
    assert "refused  the last one, 20" in said
    sync(server, home)
    until(lambda now: now["active_version"] == 3)

    answers = {}
    context = ssl.create_default_context(cafile=server.server_dir.certificates / "ca.crt")
    for path in ("/", "/fleet/", "/fleet/objects/", "/fleet/../nginx.conf", "/fleet/pins.json"):
        address = url.removesuffix("/fleet").removeprefix("https://").partition(":")
        with (
            socket.create_connection((address[0], int(address[2]))) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as stream,
        ):
            stream.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answers[path] = int(stream.recv(100).split()[1])
    assert set(answers.values()) <= {400, 403, 404}
