import json
import os
import shutil
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.cli.upkeep import doctor
from cloud_server.cli.upkeep.doctor import examine
from cloud_server.robots.register import Register
from cloud_server.signing.signing import sign
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.parts import missing_parts
from cloud_server.state.settings import load_settings
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import make_key, utc_now


def findings(server_dir, now=None):
    return examine(server_dir, now or utc_now())


def states(server_dir, **more):
    """Return subject -> the worst state of its findings."""
    order = ("ok", "warn", "fail")
    worst = {}
    for one in findings(server_dir, **more):
        worst[one.subject] = max(worst.get(one.subject, "ok"), one.state, key=order.index)
    return worst


def told(server_dir, subject, **more):
    (one,) = (f for f in findings(server_dir, **more) if f.subject == subject and f.state != "ok")
    assert one.next_step
    return one


@pytest.fixture
def good(server_dir, monkeypatch, tmp_path):
    """A directory with nothing to complain of."""
    monkeypatch.setattr(doctor, "is_synchronized", lambda: True)
    monkeypatch.setattr(doctor, "SPARE_BYTES", 0)
    Register(server_dir.robots).add("r1", "hall", make_key(tmp_path / "r1.key"))
    return server_dir


def test_a_good_directory_is_found_good(good):
    assert set(states(good).values()) == {"ok"}
    assert not any(one.next_step for one in findings(good))


def test_a_running_server_is_asked_and_nothing_is_disturbed(running_server):
    (port,) = (one for one in findings(running_server.server_dir) if one.subject == "port")

    assert (port.state, port.text) == ("ok", f"the server answers at {running_server.address}")


def test_secrets_that_others_may_read_are_found_with_the_command(good):
    (good.secrets / "server.key").chmod(0o640)
    good.secrets.chmod(0o755)

    found = told(good, "secrets")

    assert found.state == "fail"
    assert f"chmod 0700 {good.secrets}" in found.next_step
    assert f"chmod 0600 {good.secrets / 'server.key'}  # is 0640" in found.next_step


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_secrets_of_another_user_are_found(good):
    os.chown(good.admin_token, 12345, -1)

    assert f"chown 0 {good.admin_token}" in told(good, "secrets").next_step


def test_every_lineage_is_looked_at(good):
    own = replace(good, lineage="detector")
    shutil.copytree(good.checkpoints, own.checkpoints)
    found = [one for one in examine(good, utc_now()) if one.subject == "checkpoints"]
    assert [one.state for one in found] == ["ok", "ok"]
    assert "of channel detector, version 1, is whole" in found[1].text
    next(own.checkpoints.glob("*/weights.safetensors")).write_bytes(b"damaged")
    assert states(good)["checkpoints"] == "fail"


def test_a_lost_signing_key_and_a_damaged_root_are_found(good):
    sign(good)
    assert states(good)["signatures"] == "ok"
    (key,) = good.secrets.glob("signing-*.key")
    content = key.read_bytes()
    key.unlink()
    assert f"restore {key.name} from a backup" in told(good, "signatures").next_step
    key.write_bytes(content[:50])
    key.chmod(0o600)
    assert "no private key without a passphrase" in told(good, "signatures").text
    key.write_bytes(content)
    (good.store / "metadata/1.root.json").write_bytes(b"{}")
    assert "1.root.json: damaged" in told(good, "signatures").text


def test_a_missing_secret_is_found(good):
    (good.secrets / "ca.key").unlink()

    assert "ca.key missing" in told(good, "secrets").text


@pytest.mark.parametrize(
    ("days", "server", "authority"),
    [(800, "warn", "ok"), (826, "fail", "ok"), (3400, "fail", "warn"), (3651, "fail", "fail")],
)
def test_certificates_are_told_of_in_time(good, days, server, authority):
    found = states(good, now=utc_now() + timedelta(days=days))

    assert found["server certificate"] == server
    assert found["certificate authority"] == authority


def test_a_certificate_that_does_not_fit_its_key_is_found(good, tmp_path):
    from cloud_server.state.certificates import make_secrets
    from cloud_server.state.directory import ServerDirectory

    other = ServerDirectory(tmp_path / "other")
    make_secrets(other, ("127.0.0.1",), utc_now())
    shutil.copy(other.secrets / "server.key", good.secrets / "server.key")

    assert "do not fit" in told(good, "server certificate").text
    (good.certificates / "server.crt").write_text("nonsense")
    assert "not a readable certificate" in told(good, "certificates").text


def test_a_name_without_certificate_and_an_old_kit_are_found(good, monkeypatch):
    monkeypatch.setenv("FLEETLEARN_NETWORK__NAMES", "127.0.0.1,fleet.example.com")
    (good.kit / "ca.crt").write_text("of another server")

    assert "has fleet.example.com, the certificate" in told(good, "server certificate").text
    assert told(good, "kit").state == "fail"


def test_a_clock_from_before_the_files_is_found(good):
    found = told(good, "clock", now=utc_now() - timedelta(days=2))

    assert (found.state, "before files of this directory" in found.text) == ("fail", True)


def test_a_clock_that_nobody_sets_is_warned_of(good, monkeypatch):
    monkeypatch.setattr(doctor, "is_synchronized", lambda: False)

    assert told(good, "clock").state == "warn"


def test_wrong_settings_are_named_and_the_rest_is_looked_at_all_the_same(good):
    good.settings.write_text("[network]\nport = 70000\n")
    found = states(good)

    assert found["settings"] == "fail"
    assert "network.port" in told(good, "settings").text
    assert found["secrets"] == "ok"


def test_damaged_files_are_each_found(good):
    good.robots.write_text("{")
    (version,) = good.checkpoints.iterdir()
    (version / "weights.safetensors").write_bytes(b"")
    good.schedule.write_text("{}")
    found = states(good)

    assert {found[name] for name in ("register", "checkpoints", "schedule")} == {"fail"}
    assert found["port"] == found["clock"] == "ok"


def test_a_register_without_an_approved_robot_is_warned_of(good):
    Register(good.robots).suspend("r1", "test")

    assert told(good, "register").text == "1 robots, none is approved"


def test_a_disk_that_will_be_full_is_found_before_it_is(good, monkeypatch):
    monkeypatch.setattr(doctor, "SPARE_BYTES", shutil.disk_usage(good.root).free * 2 // 3)
    assert told(good, "disk").state == "warn"
    monkeypatch.setattr(doctor, "SPARE_BYTES", 1 << 60)
    failed = told(good, "disk")
    assert failed.state == "fail"
    assert "store (0 MB): lower publish.keep_versions, or `cloud-server models unpin" in (
        failed.next_step
    )


def test_a_port_that_another_program_has_is_found(good):
    with socket.socket() as other:
        other.bind(("127.0.0.1", load_settings(good.settings, {}).network.port))
        other.listen()

        assert "Address already in use" in told(good, "port").text


def test_a_server_that_runs_and_does_not_answer_is_found(good):
    with good.locked("start"):
        found = told(good, "port")

    assert "no answer from https://127.0.0.1" in found.text
    assert "look at the server's log" in found.next_step


def test_a_folder_that_is_no_server_directory_is_refused(tmp_path):
    from cloud_server.state.directory import ServerDirectory

    with pytest.raises(SettingsError, match="not a server directory"):
        examine(ServerDirectory(tmp_path), utc_now())


def test_the_command_prints_json_and_ends_with_1_if_something_fails(good):
    done = CliRunner().invoke(app, ["doctor", str(good.root), "--json"])
    assert done.exit_code == 0
    assert {one["state"] for one in json.loads(done.stdout)["findings"]} == {"ok"}

    good.secrets.chmod(0o755)
    done = CliRunner().invoke(app, ["doctor", str(good.root)])
    assert done.exit_code == 1
    assert "fail secrets: others on this machine may read secrets" in done.stdout
    assert f"next: chmod 0700 {good.secrets}" in done.stdout


def test_nothing_is_changed(good):
    def listing():
        return {p: p.stat().st_mtime_ns for p in Path(good.root).rglob("*") if p.is_file()}

    findings(good)
    before = listing()
    findings(good)
    assert listing() == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ROUNDS__QUERY", "battery >> 3", "rounds.query"),
        ("ROUNDS__TARGET", "1", "rounds.target is 1"),
        ("AGGREGATION__RULE", "fedavgg", "unknown plug-in 'fedavgg'"),
        ("AGGREGATION__OPTIONS", "{beta = 1}", "has no option beta"),
    ],
)
def test_settings_that_start_refuses_are_found(good, monkeypatch, name, value, message):
    monkeypatch.setenv(f"FLEETLEARN_{name}", value)

    assert message in told(good, "settings").text
    assert states(good)["secrets"] == "ok"


def test_a_setting_that_has_moved_is_named_with_what_to_write_instead(good, monkeypatch):
    monkeypatch.setenv("FLEETLEARN_ROUNDS__AGGREGATOR", "fedavg")

    found = told(good, "settings")

    assert found.state == "warn"
    assert found.text == (
        'rounds.aggregator has moved; remove it and write under [aggregation]: rule = "fedavg"'
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('address = "127.0.0.1:1"\nchannel = "stable"', "kit.toml sends robots to 127.0.0.1:1, "),
        ('address = "elsewhere:{port}"\nchannel = "stable"', "sends robots to elsewhere:"),
        ('address = "127.0.0.1:{port}"\nchannel = "beta"', "kit.toml follows channel beta, "),
        (
            'address = "127.0.0.1:{port}"\nchannel = "stable"\nlabels = ["circle"]',
            "kit.toml lists other labels",
        ),
        ("no toml", "not readable TOML"),
        (None, "no such file"),
    ],
)
def test_a_kit_that_does_not_fit_the_settings_is_found(good, line, words):
    port = load_settings(good.settings).network.port
    (good.kit / "kit.toml").unlink()
    if line is not None:
        (good.kit / "kit.toml").write_text(line.replace("{port}", str(port)) + "\n")

    found = told(good, "kit")

    assert (found.state, found.next_step) == ("fail", "cloud-server repair DIR")
    assert words in found.text


def object_of(server_dir, name):
    entry = DirectoryStore(server_dir.store).latest("stable").manifest.files[name]
    return server_dir.store / "objects" / entry.sha256


def test_a_store_that_lacks_an_object_or_has_a_damaged_one_is_found(good):
    path = object_of(good, "head.tflite")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")  # of the same size: reading shows it
    assert "which channel stable offers, lacks head.tflite: robots" in told(good, "store").text
    assert missing_parts(good, "stable")["store"] == []
    path.unlink()
    assert told(good, "store").state == "fail"
    assert missing_parts(good, "stable")["store"] == [
        "version 1, which channel stable offers, lacks head.tflite: robots cannot install it; "
        "rebuild it: cloud-server repair DIR"
    ]


def test_a_store_or_checkpoints_that_are_gone_are_found(good):
    shutil.rmtree(good.store)
    assert "nothing is published on channel stable" in told(good, "store").text
    shutil.rmtree(good.checkpoints)
    gone = told(good, "checkpoints")
    assert gone.state == "fail"
    assert gone.next_step.endswith("cloud-server repair DIR --start-again")


def test_an_older_version_that_lacks_files_is_a_warning(good):
    store = good.store / "versions"
    manifest = json.loads((store / "000001.json").read_text())
    entry = {"sha256": "0" * 64, "size_bytes": 7}
    manifest |= {"version": 0, "files": {**manifest["files"], "head.tflite": entry}}
    (store / "000000.json").write_text(json.dumps(manifest))
    found = told(good, "store")
    assert (found.state, found.text.startswith("versions 0 lack files")) == ("warn", True)


def test_a_file_of_another_user_is_no_reason_to_restore_a_backup(good, monkeypatch):
    def locked(_):
        raise PermissionError(13, "Permission denied", str(good.robots))

    monkeypatch.setattr(doctor, "Register", locked)
    found = told(good, "register")
    assert found.text == f"{good.robots}: Permission denied"
    assert found.next_step.startswith("run it as the user of the server: sudo -u '#")


def test_where_the_server_moves_to_must_be_in_the_certificate(good):
    def moving(address):
        moves_to = f'[network]\nmoves_to = "{address}"\n'
        toml = good.settings.read_text().replace("[network]\n", moves_to)
        aside = good.root / "moving"
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(good.root, aside, ignore=shutil.ignore_patterns("moving"))
        (aside / "server.toml").write_text(toml)
        (one,) = (f for f in findings(replace(good, root=aside)) if f.subject == "address")
        return one

    network = load_settings(good.settings).network
    assert moving("elsewhere:9").state == "fail"
    assert 'add "elsewhere" to network.names' in moving("elsewhere:9").next_step
    assert moving("127.0.0.1:9").text == "robots are told that the server moves to 127.0.0.1:9"
    assert moving(f"{network.names[0]}:{network.port}").text.startswith("moved to ")
