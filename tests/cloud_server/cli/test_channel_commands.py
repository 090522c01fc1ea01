import json

import pytest
from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.state.model_store import DirectoryStore
from fleet_model.errors import SettingsError


def run(*words):
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


@pytest.fixture
def store(server_dir):
    store = DirectoryStore(server_dir.store)
    for version in (2, 3):
        store.reissue(1, version, "2026-01-01T00:00:00")
    return store


def listed(server_dir):
    return json.loads(run("models", "list", server_dir.root, "--json").stdout)["assigned"]


def test_a_site_gets_a_version_and_follows_the_channel_again(server_dir, store):
    done = run("models", "assign", server_dir.root, 2, "--site", "hall-1")
    assert (
        "robots of site hall-1 on channel stable get version 2; the register has 0" in done.stdout
    )
    assert listed(server_dir) == {"stable/sites/hall-1": 2}
    assert "stable/sites/hall-1" in run("models", "list", server_dir.root).stdout
    done = run("models", "unassign", server_dir.root, "--site", "hall-1")
    assert "robots of site hall-1 get what channel stable offers" in done.stdout
    assert listed(server_dir) == {}


def test_where_offline_keys_sign_they_are_asked_for(server_dir, store, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUD_SERVER_PASSPHRASE", "correct horse battery")
    text = server_dir.settings.read_text().replace('channel = "stable"', 'channel = "canary"')
    server_dir.settings.write_text(text)
    run("keys", "init", server_dir.root, "--offline", tmp_path / "usb")
    with pytest.raises(SettingsError, match="channel stable is signed by offline keys: name their"):
        run("models", "assign", server_dir.root, 2, "--site", "hall-1")
    run("models", "assign", server_dir.root, 2, "--site", "hall-1", "--keys", tmp_path / "usb")
    assert listed(server_dir) == {"stable/sites/hall-1": 2}
    canary = ("--site", "yard", "--channel", "canary")
    with pytest.raises(SettingsError, match="leave --keys away"):
        run("models", "assign", server_dir.root, 3, *canary, "--keys", tmp_path / "usb")
    run("models", "assign", server_dir.root, 3, *canary)
    assert listed(server_dir) == {"canary/sites/yard": 3, "stable/sites/hall-1": 2}
    run("models", "unassign", server_dir.root, "--site", "hall-1", "--keys", tmp_path / "usb")
    assert listed(server_dir) == {"canary/sites/yard": 3}
