import json
import shutil

import pytest
from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.state.kit import faults_of_kit
from cloud_server.state.settings import load_settings
from fleet_model.errors import SettingsError


def run(*words):
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


def status(server_dir):
    return json.loads(run("keys", "status", server_dir.root, "--json").stdout)


def test_a_server_that_never_signed_says_so_and_one_command_signs(server_dir):
    before = status(server_dir)
    assert before["roles"] == []
    assert "models are not signed (root, " in before["wrong"][0]
    assert (
        f"`cloud-server start {server_dir.root}` signs"
        in run("keys", "status", server_dir.root).stdout
    )

    assert run("keys", "init", server_dir.root).exit_code == 0

    after = status(server_dir)
    assert after["wrong"] == []
    assert {one["role"] for one in after["roles"]} == {
        "root", "targets", "online", "snapshot", "timestamp",
    }  # fmt: skip
    (key,) = server_dir.secrets.glob("signing-*.key")
    assert {tuple(one["keys"]) for one in after["roles"]} == {(key.stem.partition("-")[2],)}
    assert faults_of_kit(server_dir, load_settings(server_dir.settings, {})) == []
    with pytest.raises(SettingsError, match="models are signed already"):
        run("keys", "init", server_dir.root)


def test_the_status_says_who_controls_the_robots(server_dir):
    run("keys", "init", server_dir.root)
    told = run("keys", "status", server_dir.root)
    assert "timestamp" in told.stdout
    assert "who takes this server controls which" in told.output


def test_a_new_key_takes_the_place_of_the_old_one_and_the_kit_has_its_root(server_dir):
    run("keys", "init", server_dir.root)
    (old,) = server_dir.secrets.glob("signing-*.key")
    assert "is deleted" in run("keys", "rotate", server_dir.root).output
    (new,) = server_dir.secrets.glob("signing-*.key")
    assert old.name != new.name
    assert status(server_dir)["wrong"] == []
    root = (server_dir.store / "metadata/2.root.json").read_bytes()
    assert (server_dir.kit / "root.json").read_bytes() == root


def test_a_kit_with_another_root_or_none_is_a_fault(server_dir, tmp_path):
    run("keys", "init", server_dir.root)
    settings = load_settings(server_dir.settings, {})
    (server_dir.kit / "root.json").write_bytes(b"{}")
    assert "root.json has other keys" in faults_of_kit(server_dir, settings)[0]
    (server_dir.kit / "root.json").unlink()
    assert "root.json is missing" in faults_of_kit(server_dir, settings)[0]


def test_without_its_key_the_status_names_the_file(server_dir):
    run("keys", "init", server_dir.root)
    (key,) = server_dir.secrets.glob("signing-*.key")
    shutil.move(key, server_dir.root / "away")
    assert f"restore {key.name} from a backup" in status(server_dir)["wrong"][0]
