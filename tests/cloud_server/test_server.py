import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.register import Register
from cloud_server.server import _missing, serve
from cloud_server.signing.signing import sign
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings
from edge_agent.link.flower_connection import FleetConnection
from fleet_model.errors import FleetError, SettingsError
from fleet_model.protocol.proof import public_line


def test_a_second_server_on_the_directory_is_refused(running_server):
    with pytest.raises(SettingsError, match="another `cloud-server start` runs here"):
        serve(running_server.server_dir)


def test_a_port_that_is_taken_is_said_to_be_so(server_dir):
    port = load_settings(server_dir.settings, {}).network.port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()

        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}.*network.port"):
            serve(server_dir)


def test_a_host_that_is_not_of_this_machine_is_said_to_be_so(server_dir, monkeypatch):
    monkeypatch.setenv("FLEETLEARN_NETWORK__HOST", "192.0.2.1")

    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1"):
        serve(server_dir)


def test_a_wrong_query_is_found_at_start_with_its_position(server_dir, monkeypatch):
    monkeypatch.setenv("FLEETLEARN_ROUNDS__QUERY", "online and batery > 30")

    with pytest.raises(SettingsError, match=r"rounds\.query: position 12 .* mean battery\?"):
        serve(server_dir)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("RULE", "fedavgg", r"aggregation\.rule: unknown plug-in 'fedavgg'; choose fedadagrad, "),
        ("OPTIONS", "{beta = 1}", r"rule fedavg has no option beta, it has no options"),
        (
            "RULE",
            "fedex_lora",
            r"rule fedex_lora is for adapters, and what is trained in .* has none: choose another "
            r"rule, or make a fleet with `cloud-server init --adapter lora`",
        ),
    ],
)
def test_a_wrong_rule_or_option_is_found_at_start(server_dir, monkeypatch, key, value, message):
    monkeypatch.setenv(f"FLEETLEARN_AGGREGATION__{key}", value)

    with pytest.raises(SettingsError, match=message):
        serve(server_dir)


def test_a_rule_that_uses_fresh_updates_only_is_refused_with_buffered_rounds(
    server_dir, monkeypatch
):
    monkeypatch.setenv("FLEETLEARN_AGGREGATION__RULE", "flora_stacking")
    monkeypatch.setenv("FLEETLEARN_ROUNDS__MODE", "buffered")

    with pytest.raises(SettingsError, match=r'flora_stacking uses no update .* mode "sync"'):
        serve(server_dir)


def test_a_rule_that_keeps_a_residual_is_refused_where_sites_have_models(server_dir, monkeypatch):
    monkeypatch.setenv("FLEETLEARN_AGGREGATION__RULE", "fedex_lora")
    monkeypatch.setenv("FLEETLEARN_SITES__ENABLED", "true")

    with pytest.raises(SettingsError, match=r"keeps what it adds .* such as lora_fair"):
        serve(server_dir)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("PRIVACY__MODE", "central", r"accounts for single robots, and hall-2 sends the mean"),
        ("AGGREGATION__RULE", "median", r"median must see each robot's update, and hall-2 sends"),
    ],
)
def test_a_relay_is_refused_at_start_where_single_robots_must_be_seen(
    server_dir, monkeypatch, key, value, message
):
    register = Register(server_dir.robots)
    line = public_line(ec.generate_private_key(ec.SECP384R1()).public_key())
    register.add("hall-2", "hall", line)
    register.relay("hall-2", 3)
    monkeypatch.setenv(f"FLEETLEARN_{key}", value)

    step = "cloud-server robots relay DIR hall-2 1"
    with pytest.raises(SettingsError, match=f"{message}.* `{step}`"):
        serve(server_dir)


def test_a_setting_that_has_moved_is_named_in_the_log(server_dir, monkeypatch, caplog):
    monkeypatch.setenv("FLEETLEARN_ROUNDS__AGGREGATOR", "fedavg")
    server_dir.admin_token.unlink()  # the start ends there

    with pytest.raises(SettingsError, match=r"admin\.token"):
        serve(server_dir)

    assert "rounds.aggregator has moved; remove it and write under [aggregation]" in caplog.text


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("secrets/admin.token", None, r"No such file.*backup"),
        ("secrets/admin.token", b"\n", r"it is empty.*backup"),  # would let in an empty credential
        ("secrets/admin.token", b"\xff", r"backup"),
        ("secrets/server.key", None, r"No such file.*backup.*renew-certificate"),
        ("certificates/server.crt", b"junk", r"renew-certificate"),
        ("flower/state.db", bytes(range(256)) * 64, r"not a database.*move it"),
    ],
)
def test_a_damaged_file_is_named_at_start_with_what_to_do(
    server_dir, tmp_path, file, content, message
):
    # A process of its own: logging, signals and file limits are those of the process.
    path = server_dir.root / file
    path.unlink(missing_ok=True)
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    command = [sys.executable, "-m", "cloud_server.cli", "start", str(server_dir.root)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)

    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "listening" not in ended.stderr
    assert re.search(f"{re.escape(str(path))}.*{message}", " ".join(ended.stderr.split()))


def test_a_folder_without_settings_is_not_served(tmp_path):
    with pytest.raises(SettingsError, match="not a server directory"):
        serve(ServerDirectory(tmp_path))


def test_what_a_dead_server_left_is_removed_but_not_while_a_serverapp_publishes(
    server_dir, monkeypatch
):
    def ends(*_):
        raise SettingsError("far enough")

    monkeypatch.setattr("cloud_server.server.build", ends)
    bundle = server_dir.store / ".bundle-x"
    bundle.mkdir()

    with server_dir.locked("train"), pytest.raises(SettingsError, match="far enough"):
        serve(server_dir)
    assert bundle.exists()
    with pytest.raises(SettingsError, match="far enough"):
        serve(server_dir)
    assert not bundle.exists()


def test_the_log_says_where_the_server_listens_and_what_it_is_not_telling(running_server):
    log = running_server.log.read_text()

    assert f"listening on https://{running_server.address}" in log
    assert "telemetry" not in log.lower()


def test_what_is_missing_is_in_the_log_with_the_command_that_makes_it_again(server_dir, caplog):
    sign(server_dir)
    assert _missing(server_dir, "stable")() == caplog.messages == []
    shutil.rmtree(server_dir.store / "objects")
    shutil.rmtree(server_dir.checkpoints)

    assert _missing(server_dir, "stable")() == caplog.messages
    checkpoints, store = caplog.messages
    assert checkpoints.startswith("no checkpoint is left: nothing can be trained; rebuild it: ")
    assert store.startswith("version 1, which channel stable offers, lacks ")
    assert store.endswith("robots cannot install it; rebuild it: cloud-server repair DIR")


def test_flowers_state_is_kept_from_other_users(running_server):
    assert running_server.server_dir.flower.stat().st_mode & 0o077 == 0


def test_the_server_itself_loads_no_tensorflow(running_server):
    maps = Path(f"/proc/{running_server.process.pid}/maps").read_text()

    assert "cryptography" in maps
    assert "tensorflow" not in maps


def started(server_dir):
    """Return a server process that listens, and its port."""
    command = [sys.executable, "-m", "cloud_server.cli", "start", str(server_dir.root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "listening" in line:
            break
    port = load_settings(server_dir.settings, {}).network.port
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert process.poll() is None
    return process, port


@pytest.mark.slow
def test_sigterm_is_obeyed_while_a_request_waits_for_a_database_that_is_held(server_dir):
    key = ec.generate_private_key(ec.SECP384R1())
    Register(server_dir.robots).add("r1", "hall", public_line(key.public_key()))
    process, port = started(server_dir)
    ca = (server_dir.certificates / "ca.crt").read_bytes()
    robot = FleetConnection(f"127.0.0.1:{port}", ca, key)
    database = sqlite3.connect(server_dir.flower / "state.db", isolation_level=None)
    database.execute("begin immediate")
    # Flower's writers wait for it for a minute.
    waiting = threading.Thread(target=lambda: suppressed(robot.activate), daemon=True)
    waiting.start()
    waiting.join(3.0)
    assert waiting.is_alive()

    process.terminate()
    rest = process.communicate(timeout=40)[1]

    database.execute("rollback")
    assert process.returncode == 0
    assert "still at work 10 s after the signal to end" in rest


def suppressed(call):
    with suppress(FleetError):
        call()


@pytest.mark.slow
def test_ctrl_c_is_a_clean_end_and_the_directory_is_free_again(server_dir):
    process, _ = started(server_dir)

    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=240)[1]

    assert process.returncode == 0
    assert "stopped" in rest
    assert "Traceback" not in rest
    with server_dir.locked("start"):
        pass
